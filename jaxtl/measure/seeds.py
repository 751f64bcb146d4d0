"""One program for one seed, called for all of them, on a CPU several at a time."""

import itertools
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from jaxtl.models.programs import Form, in_threads, is_key, no_values, on_one_cpu, program
from jaxtl.plan import PyTree
from jaxtl.train.resolve.replicas import replica


def call_for_seeds(
    function: Callable,
    form: Form,
    weights: PyTree,
    calls: Iterable[tuple[int, PyTree]],
    threads: int,
) -> Iterator[tuple[int, PyTree]]:
    """(number of a seed, what the function returns as NumPy arrays) of each call, in order.

    Args:
        function: `jax.jit`ted (form, weights of a seed, more) -> arrays.
        weights: leaves [seeds or 1, ...]; of those that the function does not read, no copy is
            made.
        calls: (number of a seed, more) of equal shapes, those of a seed together.
        threads: calls at a time.
    """
    calls = iter(calls)
    first = next(calls, None)
    if first is None:
        return
    of_seed = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), weights)
    run, reads = program(function, form, of_seed, first[1])
    leaves, structure = jax.tree.flatten(weights)
    on_cpu = on_one_cpu()
    held_once: dict[int, jax.Array] = {}

    def rows_of(leaf: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
        # Of an array of NumPy a row is a view; for one of JAX a program is compiled and called.
        readable = isinstance(leaf, jax.Array) and leaf.is_fully_addressable and not is_key(leaf)
        return np.asarray(leaf) if on_cpu and readable else leaf

    def part(place: int, seed: int) -> jax.Array | np.ndarray:
        leaf = leaves[place]
        if not reads[place] and not is_key(leaf):
            return no_values(leaf.shape[1:], leaf.dtype)
        if leaf.shape[0] > 1:
            return jax.device_put(replica(rows_of(leaf), seed))
        if place not in held_once:
            held_once[place] = jax.device_put(replica(leaf, 0))
        return held_once[place]

    def with_weights() -> Iterator[tuple[int, PyTree, PyTree]]:
        before, chosen = None, None
        for seed, more in itertools.chain([first], calls):
            if seed != before:
                parts = [part(place, seed) for place in range(len(leaves))]
                before, chosen = seed, jax.tree.unflatten(structure, parts)
            yield seed, chosen, more

    def call(item: tuple[int, PyTree, PyTree]) -> tuple[int, PyTree]:
        seed, chosen, more = item
        return seed, jax.device_get(run(chosen, more))

    yield from in_threads(call, with_weights(), threads)
