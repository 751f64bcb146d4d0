"""How far the gradients of tasks agree: logged by step, for every rule that combines them."""

import itertools

import jax
import jax.numpy as jnp

from jaxtl.methods.multitask.gram import gram
from jaxtl.plan import Combine, Metrics, PyTree

DECAY = 0.99
MOST_PAIRS = 6
"""Pairs of tasks of which each has a cosine of its own in the log."""


def watched(rule: Combine) -> Combine:
    """The same rule; the log says how the gradients that it is given agree.

    `conflicts` is the share of pairs of tasks whose gradients have a negative inner product,
    `cosine` the mean over the pairs; where there are at most six, each has its own
    `cosine_<i>_<j>`. All are moving averages, as a log holds one step of many.
    """

    def init(trainable: PyTree, losses: jax.Array) -> PyTree:
        zeros = {name: jnp.zeros(()) for name in agreement(jnp.zeros((len(losses),) * 2))}
        return {"rule": rule.init(trainable, losses), "averages": zeros, "steps": jnp.int32(0)}

    def update(jacobian: PyTree, losses: jax.Array, state: PyTree, rng: jax.Array):
        grads, inner, metrics = rule.update(jacobian, losses, state["rule"], rng)
        steps, latest = state["steps"] + 1, agreement(gram(jacobian))
        averages = jax.tree.map(
            lambda old, new: DECAY * old + (1 - DECAY) * new, state["averages"], latest
        )
        shown = {name: value / (1 - DECAY**steps) for name, value in averages.items()}
        return grads, {"rule": inner, "averages": averages, "steps": steps}, shown | metrics

    def others(losses: jax.Array, before: PyTree, after: PyTree) -> jax.Array:
        return rule.others(losses, before["rule"], after["rule"])

    return Combine(init, update, rule.others and others)


def agreement(products: jax.Array) -> Metrics:
    """What `watched` logs, of one step; {} for a single task.

    Args:
        products: [tasks, tasks], g_i . g_j; the cosine with a gradient of length 0 is 0.
    """
    pairs = list(itertools.combinations(range(len(products)), 2))
    if not pairs:
        return {}
    first, second = map(jnp.array, zip(*pairs, strict=True))
    cosines = cosines_of(products)[first, second]
    metrics = {"conflicts": jnp.mean(cosines < 0), "cosine": jnp.mean(cosines)}
    if 1 < len(pairs) <= MOST_PAIRS:
        metrics |= {f"cosine_{i}_{j}": cosines[n] for n, (i, j) in enumerate(pairs)}
    return metrics


def cosines_of(products: jax.Array) -> jax.Array:
    """[tasks, tasks] in [-1, 1]; 0 beside a gradient of length 0."""
    lengths = jnp.sqrt(jnp.diagonal(products))
    lengths = jnp.where(lengths > 0, lengths, jnp.inf)
    return jnp.clip(products / lengths[:, None] / lengths[None], -1, 1)
