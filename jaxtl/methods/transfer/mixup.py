"""mixup: training on weighted means of pairs of examples."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import supervised
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Batch, Method, PyTree


def mixup(
    tx: optax.GradientTransformation | Groups,
    *,
    alpha: float = 0.2,
    lambdas: Mapping[str, float] | None = None,
) -> Method:
    """Fine-tuning on inputs share * x_i + (1 - share) * x_j with the loss of both labels.

    The loss is share * w_i loss(z, y_i) + (1 - share) * w_j loss(z, y_j), for class labels the
    cross-entropy of the mixed labels. Of a pair with a hidden label (weight 0) the inputs are
    mixed, and only the term of the known label counts. As in the authors' code, partners are the
    batch in another order and one share ~ Beta(alpha, alpha) is drawn for a whole batch, here one
    for each domain; domains are not mixed with each other.

    Args:
        alpha: > 0; small values leave most examples almost as they are.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018. arXiv:1710.09412, Eq. 1
    and Figure 1a.
    """

    def loss_fn(model, params, state, batch, rng, step):
        key, rng = jax.random.split(rng)
        inputs, first, partners = mix_pairs(key, batch, alpha)
        output, state = apply_flat(model, params, state, inputs, rng=rng, train=True)
        loss, metrics = supervised(model.heads, output["logits"], first, lambdas)
        partner_loss, more = supervised(model.heads, output["logits"], partners, lambdas)
        return loss + partner_loss, (state, jax.tree.map(jnp.add, metrics, more))

    return one_update(as_groups(tx), loss_fn, per_example=False)


def mix_pairs(rng: jax.Array, batch: Batch, alpha: float) -> tuple[PyTree, Batch, Batch]:
    """(mixed inputs, own labels with their share of the weights, the partners' likewise).

    Raises:
        ValueError: inputs are not floats, such as token ids.
    """
    kinds = {leaf.dtype for leaf in jax.tree.leaves(batch.inputs)}
    if not all(jnp.issubdtype(kind, jnp.floating) for kind in kinds):
        raise ValueError(f"mixup needs inputs that are floats, got {', '.join(map(str, kinds))}.")
    size, domains = batch.present.shape
    share_key, order_key = jax.random.split(rng)
    share = jax.random.beta(share_key, alpha, alpha, (1, domains))
    order = jnp.tile(jnp.arange(size)[:, None], (1, domains))
    order = jax.random.permutation(order_key, order, axis=0, independent=True)

    def aligned(values: jax.Array, leaf: jax.Array) -> jax.Array:
        return jnp.expand_dims(values, tuple(range(2, leaf.ndim)))

    def of_partner(leaf: jax.Array) -> jax.Array:
        return jnp.take_along_axis(leaf, aligned(order, leaf), axis=0)

    def mix(leaf: jax.Array) -> jax.Array:
        part = aligned(share, leaf).astype(leaf.dtype)
        return part * leaf + (1 - part) * of_partner(leaf)

    def weigh(part: jax.Array, labels: PyTree, weights: PyTree) -> Batch:
        weights = jax.tree.map(lambda leaf: aligned(part, leaf) * leaf, weights)
        return batch.replace(labels=labels, weights=weights)

    targets = (batch.labels, batch.weights)
    inputs, partners = jax.tree.map(mix, batch.inputs), jax.tree.map(of_partner, targets)
    return inputs, weigh(share, *targets), weigh(1 - share, *partners)
