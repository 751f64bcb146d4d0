"""What a model says about the examples of a domain, for methods that look at them beforehand."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np

from jaxtl.data import to_float
from jaxtl.plan import Model, Params, PyTree, State, Statistics


def outputs(
    model: Model,
    params: Params,
    state: State,
    inputs: PyTree,
    name: str | None,
    batch_size: int = 256,
) -> PyTree:
    """One output, or all, of a model that is not training, NumPy arrays on the host.

    Args:
        model, params, state: as `Method.prepare` gets them.
        inputs: pytree of [n, ...], as in `Columns`.
        name: "features" or "logits", and the other is not computed; None for both.
        batch_size: examples in one call, all of one shape: the last repeats its last example.

    Returns:
        Features [n, ...] or logits {head: [n, size]}, or {"features", "logits"} of both.
    """
    count = len(jax.tree.leaves(inputs)[0])
    batch_size, parts = min(batch_size, count), []
    params, statistics = jax.device_put((params, state.statistics))
    for start in range(0, count, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)
        batch = jax.tree.map(lambda leaf, rows=rows: leaf[rows], inputs)
        parts.append(jax.device_get(_apply(model.apply, name, params, statistics, batch)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *parts)


@partial(jax.jit, static_argnums=(0, 1))
def _apply(
    apply: Callable, name: str | None, params: Params, statistics: Statistics, inputs: PyTree
) -> PyTree:
    found = apply(params, statistics, to_float(inputs))[0]
    return found if name is None else found[name]
