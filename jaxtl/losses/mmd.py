"""Maximum mean discrepancy: the distance of two samples' means in the space of a kernel."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxtl.losses.kernels import MEAN_BANDWIDTHS, Bandwidths, pooled_kernel
from jaxtl.losses.weighting import weigh


def mmd(
    source: jax.Array,
    target: jax.Array,
    source_weights: jax.Array | None = None,
    target_weights: jax.Array | None = None,
    *,
    bandwidths: Bandwidths = MEAN_BANDWIDTHS,
    unbiased: bool = False,
) -> jax.Array:
    """Squared MMD with the mean over bandwidths of exp(-d^2 / bandwidth) for a kernel.

    The kernels are averaged, not summed, and nothing is added: the value is the estimate of the
    paper, at most 2.

    Args:
        source: [n_source, features] float.
        target: [n_target, features] float; n_target may differ from n_source.
        source_weights: [n_source] float >= 0, frequency weights; all ones if None.
        target_weights: [n_target], likewise.
        bandwidths: [k] > 0, in the units of squared distances, or a rule that finds them in the
            pooled sample (squared distances [n, n], weights of the pairs [n, n]) -> [k], a
            constant of the gradient.
        unbiased: leave the pairs of an example with itself out (Lemma 6, a U-statistic). Such a
            value may be negative, and is 0 where a domain has a total weight of 1 or less.
            Otherwise all pairs count (Eq. 5, a V-statistic): the value is >= 0, zero for equal
            samples, and only the proportions of the weights count.

    Returns:
        []; 0 where a domain has no weight.

    Gretton et al., "A Kernel Two-Sample Test", JMLR 2012; several bandwidths as in Long et al.,
    "Learning Transferable Features with Deep Adaptation Networks", 2015. arXiv:1502.02791.
    """
    kernel = pooled_kernel(source, target, source_weights, target_weights, bandwidths)
    return _discrepancy(kernel, (source, source_weights), (target, target_weights), unbiased)


def joint_mmd(
    sources: Sequence[jax.Array],
    targets: Sequence[jax.Array],
    source_weights: jax.Array | None = None,
    target_weights: jax.Array | None = None,
    *,
    bandwidths: Sequence[Bandwidths] | None = None,
    unbiased: bool = False,
) -> jax.Array:
    """Squared MMD of several layers together: the kernel is the product of the layers' kernels.

    Args:
        sources: a layer's [n_source, features] for each; the widths may differ.
        targets: [n_target, features] likewise.
        source_weights: [n_source] float >= 0, frequency weights; all ones if None.
        target_weights: [n_target], likewise.
        bandwidths: as in `mmd`, for each layer; `mean_bandwidths()` if None.
        unbiased: as in `mmd`.

    Returns:
        []; 0 where a domain has no weight.

    Raises:
        ValueError: not as many targets or bandwidths as sources.

    Long et al., "Deep Transfer Learning with Joint Adaptation Networks", 2017. arXiv:1605.06636;
    kernels are averaged over bandwidths as in `mmd`.
    """
    rules = [MEAN_BANDWIDTHS] * len(sources) if bandwidths is None else bandwidths
    if not len(sources) == len(targets) == len(rules):
        raise ValueError(
            f"one source, target and bandwidths for each layer expected, got {len(sources)}, "
            f"{len(targets)} and {len(rules)}"
        )
    kernel = jnp.ones(())
    for source, target, rule in zip(sources, targets, rules, strict=True):
        kernel = kernel * pooled_kernel(source, target, source_weights, target_weights, rule)
    sides = (sources[0], source_weights), (targets[0], target_weights)
    return _discrepancy(kernel, *sides, unbiased)


def _discrepancy(kernel: jax.Array, source: tuple, target: tuple, unbiased: bool) -> jax.Array:
    """Squared MMD for a pooled kernel whose diagonal is 1."""
    (_, source_weights, some_source), (_, target_weights, some_target) = (
        weigh(*source),
        weigh(*target),
    )
    totals = jnp.stack([source_weights.sum(), target_weights.sum()])
    shares = jax.scipy.linalg.block_diag(source_weights[None], target_weights[None])
    shares /= totals[:, None]
    means = jnp.einsum("ai,ij,bj->ab", shares, kernel, shares, precision="highest")
    within, defined = jnp.diagonal(means), some_source & some_target
    if unbiased:
        rest = totals - 1
        within = (totals * within - 1) / jnp.where(rest > 0, rest, 1)
        defined &= (rest > 0).all()
    value = within.sum() - 2 * means[0, 1]
    if not unbiased:
        value += jax.lax.stop_gradient(jnp.maximum(-value, 0))  # what is below 0 is rounding
    return jnp.where(defined, value, 0)
