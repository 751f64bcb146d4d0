"""Frozen work once: what a model's first blocks make of rows, taken from the feature store.

A digest decides whether features may be used again, so where a model is cut is a matter of speed
alone: any block is right.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from jaxtl.data.streamed import select
from jaxtl.features import Program, cut, store, trace
from jaxtl.measure.examples import Examples
from jaxtl.measure.results import TrainedArm
from jaxtl.models import outputs
from jaxtl.models.outputs import row_shapes
from jaxtl.models.programs import no_values
from jaxtl.paths import flatten, nest
from jaxtl.plan import Model, Params, PyTree, State
from jaxtl.train.mesh import to_host
from jaxtl.train.resolve.replicas import replica


def stored_features(
    first: Model, params: Params, state: State, inputs: PyTree, rows: Mapping[int, np.ndarray]
) -> dict[int, PyTree] | None:
    """{seed: features of its rows, leaves [k, ...]}, one object for seeds that share them.

    Args:
        first: deterministic first blocks.
        params, state: leaves [seeds or 1, ...].
        inputs: leaves [n, ...] of a table.
        rows: {number of a seed: [k]}.

    Returns:
        None where it is not worth it: no matrix is multiplied (an embedding's rows are looked up
        faster than they are stored), or all features do not fit in memory.
    """
    program, read = _traced(first, params, state, inputs)
    held_once = all(leaf.shape[0] == 1 for leaf in read)
    distinct = {chosen.tobytes(): len(chosen) for chosen in rows.values()}
    count = sum(distinct.values() if held_once else map(len, rows.values()))
    leaves = jax.tree.leaves(program.features)
    row_bytes = sum(leaf.size * leaf.dtype.itemsize // leaf.shape[0] for leaf in leaves)
    if not program.multiplies or row_bytes * count > store().memory_bytes:
        return None
    flat = [flatten(tree) for tree in (params, state.statistics)]

    def of_seed(path: str, leaf: jax.Array, seed: int) -> jax.Array | np.ndarray:
        if path in program.reads:
            return replica(leaf, seed)
        return no_values(leaf.shape[1:], leaf.dtype)

    features: dict[int, PyTree] = {}
    by_rows: dict[bytes, PyTree] = {}
    for seed, chosen in rows.items():
        features[seed] = by_rows.get(chosen.tobytes()) if held_once else None
        if features[seed] is None:
            weights = (
                nest({path: of_seed(path, leaf, seed) for path, leaf in tree.items()})
                for tree in flat
            )
            features[seed] = store().features(first, *weights, inputs, chosen)
            by_rows[chosen.tobytes()] = features[seed]
    return features


class Latest:
    """The features that were asked for last: they are those of the same arrays, without a digest.

    So what was made of them, and lies on a device, need not be made again.
    """

    def __init__(self):
        self._asked: tuple[Model | None, list[Callable[[], Any]]] = (None, [])
        self._made: Any = None

    def get(
        self,
        first: Model,
        params: Params,
        state: State,
        inputs: PyTree,
        rows: Mapping[int, np.ndarray],
        make: Callable[[Sequence[PyTree] | None], Any],
    ) -> Any:
        """`make` of `stored_features`, each time with the same inputs and rows."""
        read = _traced(first, params, state, inputs)[1]
        before, leaves = self._asked
        same = before is first and len(leaves) == len(read)
        if not same or any(was() is not leaf for was, leaf in zip(leaves, read, strict=True)):
            features = stored_features(first, params, state, inputs, rows)
            self._made = make(features and [*features.values()])
            self._asked = first, list(map(weakref.ref, read))
        return self._made


def features_once(first: Model, params: Params, state: State, examples: Examples) -> list[PyTree]:
    """Of each seed, the features of the rows of inputs that it reads, ascending; not stored.

    Args:
        params, state: leaves [seeds or 1, ...].
    """
    weights = to_host((params, state))
    return [
        outputs(first, *replica(weights, seed), select(inputs, np.unique(places)), "features")
        for seed, (inputs, places) in enumerate(zip(examples.inputs, examples.places, strict=True))
    ]


def _traced(
    first: Model, params: Params, state: State, inputs: PyTree
) -> tuple[Program, list[jax.Array]]:
    """The program of the features, and the leaves [seeds or 1, ...] that it reads."""
    trees = params, state.statistics
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), trees)
    program = trace(first, *shapes, row_shapes(inputs, 1), train=False)
    return program, program.leaves_of(*trees)


def outputs_at_end(
    arm: TrainedArm,
    seed: int,
    inputs: PyTree,
    rows: np.ndarray,
    part: Literal["features", "logits"],
) -> PyTree:
    """What the model of an arm's last stage puts out for rows of a table, as `models.outputs`.

    Args:
        seed: number of the seed.
        inputs: leaves [n, ...] of the table.
        rows: [k].
    """
    stage, params, state = arm.stages[-1], arm.last.params, arm.last.state
    model, features = stage.model, None
    if (block := arm.cuts.get(stage.name)) is not None:
        first, rest = cut(model, block)
        features = stored_features(first, params, state, inputs, {seed: rows})
    if features is not None:
        model, chosen = rest, features[seed]
    else:
        chosen = select(inputs, rows)
    return outputs(model, *replica(to_host((params, state)), seed), chosen, part)
