"""Maximum mean discrepancies between the classes of two domains."""

import jax
import jax.numpy as jnp

from jaxtl.losses.kernels import MEAN_BANDWIDTHS, Bandwidths, pooled_kernel
from jaxtl.losses.weighting import weigh


def local_mmd(
    source: jax.Array,
    target: jax.Array,
    source_classes: jax.Array,
    target_classes: jax.Array,
    source_weights: jax.Array | None = None,
    target_weights: jax.Array | None = None,
    *,
    bandwidths: Bandwidths = MEAN_BANDWIDTHS,
) -> jax.Array:
    """Squared MMD between the domains' examples of a class, the mean over all classes.

    An example belongs to each class by a share. A class without share in one of the domains adds 0;
    it counts in the mean, as in the paper. Public code divides by the number of classes that the
    two batches have in common, where a target's class is its likeliest.

    Args:
        source: [n_source, features] float.
        target: [n_target, features] float.
        source_classes: [n_source, classes] float >= 0, one-hot labels. No gradient flows here.
        target_classes: [n_target, classes], the softmax of the logits, likewise.
        source_weights: [n_source] float >= 0, only their proportions count; all ones if None.
        target_weights: [n_target], likewise.
        bandwidths: as in `mmd`.

    Returns:
        [] float >= 0; 0 where a domain has no weight.

    Zhu et al., "Deep Subdomain Adaptation Network for Image Classification", 2020.
    arXiv:2106.09388.
    """
    kernel = pooled_kernel(source, target, source_weights, target_weights, bandwidths)
    source_shares, source_found = _class_shares(source_classes, source_weights)
    target_shares, target_found = _class_shares(target_classes, target_weights)
    shares = jnp.concatenate([source_shares, -target_shares])
    shares = jnp.where((source_found & target_found)[None], shares, 0)
    value = jnp.sum(shares * jnp.matmul(kernel, shares, precision="highest"))
    value += jax.lax.stop_gradient(jnp.maximum(-value, 0))  # what is below 0 is rounding
    return value / shares.shape[1]


def contrastive_domain_discrepancy(
    source: jax.Array,
    target: jax.Array,
    source_labels: jax.Array,
    target_labels: jax.Array,
    source_weights: jax.Array | None = None,
    target_weights: jax.Array | None = None,
    *,
    num_classes: int,
    bandwidths: Bandwidths = MEAN_BANDWIDTHS,
) -> jax.Array:
    """Squared MMD between the domains within classes, minus that between different classes.

    The mean over the classes c that both domains have, minus the mean over the pairs of classes
    c != c', c in the source and c' in the target. With every class in both batches, which the paper
    samples for, these are its 1 / M and 1 / (M (M - 1)). An absent class is in no mean, and a mean
    over nothing is 0.

    Args:
        source: [n_source, features] float.
        target: [n_target, features] float.
        source_labels: [n_source] int in [0, num_classes); others (-1) count nowhere.
        target_labels: [n_target] int, such as clusters, likewise.
        source_weights: [n_source] float >= 0, only their proportions count; all ones if None.
        target_weights: [n_target], likewise.
        num_classes: of the labels.
        bandwidths: as in `mmd`: one set for all classes.

    Returns:
        [], which may be negative; 0 where a domain has no weight.

    Kang et al., "Contrastive Adaptation Network for Unsupervised Domain Adaptation", CVPR 2019.
    arXiv:1901.00976.
    """
    kernel = pooled_kernel(source, target, source_weights, target_weights, bandwidths)
    one_hot = [jax.nn.one_hot(labels, num_classes) for labels in (source_labels, target_labels)]
    source_shares, source_found = _class_shares(one_hot[0], source_weights)
    target_shares, target_found = _class_shares(one_hot[1], target_weights)

    n = len(source_shares)
    means = (
        jnp.einsum(
            "ic,ij,jc->c", source_shares, kernel[:n, :n], source_shares, precision="highest"
        ),
        jnp.einsum(
            "ic,ij,jc->c", target_shares, kernel[n:, n:], target_shares, precision="highest"
        ),
        jnp.einsum(
            "ic,ij,jd->cd", source_shares, kernel[:n, n:], target_shares, precision="highest"
        ),
    )
    distances = means[0][:, None] + means[1][None] - 2 * means[2]
    both, same = source_found[:, None] & target_found[None], jnp.eye(num_classes, dtype=bool)

    def mean_of(pairs: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(pairs, distances, 0)) / jnp.maximum(pairs.sum(), 1)

    return mean_of(both & same) - mean_of(both & ~same)


def _class_shares(classes: jax.Array, weights: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Columns of sum 1 over the examples [n, classes], zero for an absent class; [classes] bool."""
    classes, weights, present = weigh(jax.lax.stop_gradient(classes), weights)
    shares = jnp.where(present, weights[:, None] * classes, 0)
    totals = shares.sum(0)
    return shares / jnp.where(totals > 0, totals, 1)[None], totals > 0
