"""AND-mask: what moves is what all domains want to move the same way."""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxtl.form import SHARE, checked
from jaxtl.plan import Combine, PyTree


@checked
def and_mask(threshold: Annotated[float, SHARE] = 1.0) -> Combine:
    """The sum of the domains' gradients where their signs agree, 0 elsewhere.

    Of a component, the agreement is |sum of the signs| / domains. Components that agree are divided
    by their share in the parameter's array, as in public code, so that a step keeps its size; this
    also makes 0 the sum itself. The paper's gradient is the mean, 1 / domains of this sum. A domain
    without any gradient (without labels) has no say. The share of all components that are kept is
    logged as `agreement`.

    Args:
        threshold: the paper's tau in [0, 1]; 1 wants all signs to be the same.

    Parascandolo et al., "Learning explanations that are hard to vary", ICLR 2021.
    arXiv:2009.00329, Section 3.
    """

    def update(jacobian: PyTree, losses: jax.Array, state: PyTree, rng: jax.Array):
        agreement = sign_agreement(jacobian)
        # Shares such as 2 / 3 are rounded.
        masks = jax.tree.map(lambda share: (share > threshold - 1e-6).astype("float32"), agreement)
        return masked_sum(masks, jacobian), state, {"agreement": mean_of_all(masks)}

    return Combine(lambda trainable, losses: (), update)


def has_gradient(jacobian: PyTree) -> jax.Array:
    """[domains] bool: those with a gradient that is not 0 everywhere."""
    nonzero = [jnp.any(leaf.reshape(len(leaf), -1) != 0, 1) for leaf in jax.tree.leaves(jacobian)]
    return jnp.stack(nonzero).any(0)


def sign_agreement(jacobian: PyTree) -> PyTree:
    """|sum of the signs| / domains with a gradient, in [0, 1]: leaves [domains, ...] -> [...]."""
    domains = jnp.maximum(1, has_gradient(jacobian).sum())
    return jax.tree.map(lambda leaf: jnp.abs(jnp.sign(leaf).sum(0)) / domains, jacobian)


def masked_sum(masks: PyTree, jacobian: PyTree) -> PyTree:
    """mask * sum over domains / mean of the mask, of every leaf; 0 where a mask is 0 everywhere."""

    def combine(mask: jax.Array, rows: jax.Array) -> jax.Array:
        share = mask.mean()
        scale = mask / jnp.where(share > 0, share, 1)
        return (scale * rows.sum(0)).astype(rows.dtype)

    return jax.tree.map(combine, masks, jacobian)


def mean_of_all(tree: PyTree) -> jax.Array:
    """The mean of all numbers of a tree."""
    leaves = jax.tree.leaves(tree)
    return sum(leaf.sum() for leaf in leaves) / sum(leaf.size for leaf in leaves)
