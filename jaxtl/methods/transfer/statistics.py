"""Batch statistics made anew, for parameters that are averages and never met the data."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.models import to_float
from jaxtl.plan import Columns, Method, Model, Params, PyTree, State, Statistics


def refresh_statistics(batch_size: int = 256) -> Method:
    """A stage without steps: every batch statistic becomes its mean over batches of the data.

    The parameters stay. Batches are those of one shuffled epoch of the largest domain, with
    `batch_size` examples from each; a domain that ends before begins again. Augmentations are not
    applied.

    Args:
        batch_size: examples per domain and batch; all of a smaller domain.

    Raises:
        ValueError: when the stage starts, the model has no batch statistics.

    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018.
    arXiv:1803.05407.
    """

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        if not state.statistics:
            raise ValueError("refresh_statistics: the model has no batch statistics")
        apply = dataclasses.replace(model, live=(".*",)).apply
        sizes = [len(jax.tree.leaves(domain.inputs)[0]) for domain in domains]
        size = min([batch_size, *sizes])
        count = math.ceil(max(sizes) / size)
        orders = [np.random.default_rng(0).permutation(rows) for rows in sizes]
        orders = [np.resize(order, count * size) for order in orders]
        device, total = jax.device_put(params), jax.tree.map(jnp.zeros_like, state.statistics)
        for start in range(0, count * size, size):
            parts = [
                jax.tree.map(
                    lambda leaf, rows=order[start : start + size]: leaf[rows], domain.inputs
                )
                for order, domain in zip(orders, domains, strict=True)
            ]
            inputs = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
            total = jax.tree.map(jnp.add, total, _of_batch(apply, device, total, inputs))
        statistics = jax.tree.map(lambda leaf: leaf / count, total)
        return params, state._replace(statistics=statistics)

    return Method(prepare=prepare)


@functools.partial(jax.jit, static_argnums=0)
def _of_batch(apply: Callable, params: Params, like: Statistics, inputs: PyTree) -> Statistics:
    """The statistics of one batch, read off what training makes of zeros and of ones.

    A layer moves its statistics from `old` to m * old + (1 - m) * new, with a momentum m of its
    own, and its outputs do not depend on `old`.
    """

    def updated(old: float) -> Statistics:
        statistics = jax.tree.map(lambda leaf: jnp.full_like(leaf, old), like)
        return apply(params, statistics, to_float(inputs), rng=jax.random.key(0), train=True)[1]

    at_zero, at_one = updated(0.0), updated(1.0)
    return jax.tree.map(lambda low, high: low / (1 - (high - low)), at_zero, at_one)
