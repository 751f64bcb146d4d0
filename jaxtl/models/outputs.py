"""What a model that is not training says about rows: all at once, or batch by batch."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.models.programs import (
    Form,
    batch_rows,
    calls_at_a_time,
    form_of,
    in_threads,
    program,
    rows_at_once,
    what_is_read,
)
from jaxtl.plan import Model, Params, PyTree, State

Predict = Callable[[Model, Params, State, PyTree], dict[str, Any]]
"""`Method.predict`, of a method whose predictions are not those of `model.apply`."""


def to_float(inputs: PyTree) -> PyTree:
    """uint8 leaves -> float32 in [0, 1]; other leaves unchanged. May be jitted."""
    return jax.tree.map(
        lambda x: x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x, inputs
    )


def forward(
    model: Model, predict: Predict | None = None
) -> Callable[[Params, State, PyTree], dict[str, Any]]:
    """The pure function (params, state, inputs [n, ...] as they are stored) -> output."""

    def run(params: Params, state: State, inputs: PyTree) -> dict[str, Any]:
        inputs = to_float(inputs)
        if predict is not None:
            return predict(model, params, state, inputs)
        return model.apply(params, state.statistics, inputs)[0]

    return run


def outputs(
    model: Model,
    params: Params,
    state: State,
    inputs: PyTree,
    part: Literal["features", "logits"] | None = None,
    *,
    predict: Predict | None = None,
    batch_size: int | None = None,
) -> PyTree:
    """The output for many rows, or a part of it, as NumPy arrays.

    Compiled once for what models compute and a shape of batches, whoever asks; on a CPU several
    batches are computed at a time.

    Args:
        model, params, state: of one seed.
        inputs: leaves [n, ...] in memory or streamed, as a table stores them.
        part: the other one is then not computed; None for both.
        predict: instead of `model.apply`.
        batch_size: rows in one call, all n if there are fewer; the last call repeats its last row.
            None chooses as many as the device is fast with.

    Returns:
        Features [n, ...] or logits {head: [n, size]}, or {"features", "logits"} of both.
    """
    form, count = form_of(model, predict, part), len(jax.tree.leaves(inputs)[0])
    if not count:
        shapes = jax.eval_shape(
            functools.partial(batch_outputs, form), params, state, row_shapes(inputs, 1)
        )
        return jax.tree.map(lambda x: np.zeros((0, *x.shape[1:]), x.dtype), shapes)
    if batch_size is None:
        size = batch_rows(count, rows_at_once(batch_outputs, form, params, state, inputs))
    else:
        size = min(batch_size, count)
    run, reads = program(batch_outputs, form, params, state, row_shapes(inputs, size))
    params, state = what_is_read((params, state), reads)

    def batches() -> Iterator[PyTree]:
        for start in range(0, count, size):
            rows = np.minimum(np.arange(start, start + size), count - 1)
            yield jax.tree.map(lambda leaf, rows=rows: leaf[rows], inputs)

    def compute(batch: PyTree) -> PyTree:
        return jax.device_get(run(params, state, batch))

    parts = list(in_threads(compute, batches(), min(calls_at_a_time(), -(-count // size))))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *parts)


def row_shapes(inputs: PyTree, count: int) -> PyTree:
    """The shapes of so many rows of inputs [n, ...]."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype), inputs)


@functools.partial(jax.jit, static_argnums=0)
def batch_outputs(form: Form, params: Params, state: State, inputs: PyTree) -> PyTree:
    """The output for a batch, or the part of it that the form names."""
    (part,) = form.others
    output = forward(form.model, form.predict)(params, state, inputs)
    return output if part is None else output[part]


def in_batches(function: Callable[[PyTree], PyTree], inputs: PyTree, size: int) -> PyTree:
    """A function of [n, ...] leaves, computed in batches of at most `size`, one after another.

    For rows on the device, inside of a program.
    """
    n = len(jax.tree.leaves(inputs)[0])
    count = -(-n // size)
    size = -(-n // count)

    def cut(leaf: jax.Array) -> jax.Array:
        whole = jnp.pad(leaf, [(0, count * size - n), *[(0, 0)] * (leaf.ndim - 1)], "edge")
        return whole.reshape(count, size, *leaf.shape[1:])

    parts = jax.lax.map(function, jax.tree.map(cut, inputs))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n], parts)
