"""Which inputs of a function are indices, token ids say, and into how many entries."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

PyTree = Any


def index_bounds(
    function: Callable[..., Any], params: PyTree, state: PyTree, inputs: PyTree
) -> list[int | None]:
    """For each leaf of the inputs, how many entries the table has that its integers choose from.

    Of several tables the smallest counts. JAX reads another entry, or NaN, for an index that is out
    of range; nothing says so.

    Args:
        function: (params, state, inputs) -> outputs.
        inputs: abstract ones will do.

    Returns:
        None for a leaf that is not looked up anywhere.
    """
    bounds = []
    traced = jax.make_jaxpr(function)(params, state, inputs).jaxpr
    leaves = jax.tree.leaves(inputs)
    first = len(traced.invars) - len(leaves)
    for i, leaf in enumerate(leaves):
        sizes: list[int] = []
        if np.issubdtype(leaf.dtype, np.integer):
            _follow(traced, [j == first + i for j in range(len(traced.invars))], sizes)
        bounds.append(min(sizes, default=None))
    return bounds


def _follow(jaxpr: Any, is_index: Sequence[bool], sizes: list[int]) -> list[bool]:
    """Collect the sizes of the tables that indices are looked up in.

    Args:
        is_index: which of the inputs are computed from the leaf, as integers.

    Returns:
        Which of the outputs are.
    """
    marked = {var for var, mark in zip(jaxpr.invars, is_index, strict=True) if mark}

    def is_marked(atom: Any) -> bool:
        return not hasattr(atom, "val") and atom in marked

    for equation in jaxpr.eqns:
        marks = [is_marked(atom) for atom in equation.invars]
        if not any(marks):
            continue
        if equation.primitive.name == "gather" and marks[1]:
            axes = equation.params["dimension_numbers"].start_index_map
            table, slices = equation.invars[0].aval.shape, equation.params["slice_sizes"]
            sizes += [table[axis] - slices[axis] + 1 for axis in axes]
            continue
        outputs = [_is_whole(var) for var in equation.outvars]
        for inner, names in _inside(equation, marks):
            within = _follow(inner, names, sizes)
            if len(within) == len(outputs):
                outputs = [a and b for a, b in zip(outputs, within, strict=True)]
        marked |= {var for var, mark in zip(equation.outvars, outputs, strict=True) if mark}
    return [is_marked(atom) for atom in jaxpr.outvars]


def _is_whole(var: Any) -> bool:
    return np.issubdtype(var.aval.dtype, np.integer)


def _inside(equation: Any, marks: list[bool]) -> list[tuple[Any, list[bool]]]:
    """[(a function that an equation calls, which of its inputs are marked)]."""
    inner = []
    for value in equation.params.values():
        for part in value if isinstance(value, Mapping | list | tuple) else [value]:
            jaxpr = getattr(part, "jaxpr", part)
            if hasattr(jaxpr, "eqns"):
                size = len(jaxpr.invars)  # `cond` takes the index of its branch first
                inner += [(jaxpr, marks[-size:])] if size <= len(marks) else []
    return inner
