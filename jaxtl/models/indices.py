"""Which inputs of a function are indices, token ids say, and into how many entries."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

PyTree = Any

MOVES = {
    "broadcast_in_dim",
    "concatenate",
    "convert_element_type",
    "copy",
    "expand_dims",
    "reshape",
    "slice",
    "squeeze",
    "transpose",
}
"""Operations whose integers are those that they were given; sums, say, are other numbers."""


def index_bounds(
    function: Callable[..., Any], params: PyTree, state: PyTree, inputs: PyTree
) -> dict[str, int]:
    """How many entries the tables have that integers among the inputs are looked up in.

    JAX reads another entry, or NaN, for an index that is out of range; nothing says so.

    Args:
        function: (params, state, inputs) -> outputs.
        params, state, inputs: abstract ones will do.

    Returns:
        {key path of a leaf of the inputs: entries of the smallest table}, of those looked up.
    """
    bounds = {}
    traced = jax.make_jaxpr(function)(params, state, inputs).jaxpr
    leaves = jax.tree_util.tree_leaves_with_path(inputs)
    first = len(traced.invars) - len(leaves)
    for i, (path, leaf) in enumerate(leaves):
        sizes: list[int] = []
        if np.issubdtype(leaf.dtype, np.integer):
            _follow(traced, [j == first + i for j in range(len(traced.invars))], sizes)
        if sizes:
            bounds[jax.tree_util.keystr(path)] = min(sizes)
    return bounds


def _follow(jaxpr: Any, is_index: Sequence[bool], sizes: list[int]) -> list[bool]:
    """Collect the sizes of the tables that indices are looked up in.

    Args:
        is_index: which of the inputs hold numbers of the leaf.

    Returns:
        Which of the outputs are.
    """
    marked = {var for var, mark in zip(jaxpr.invars, is_index, strict=True) if mark}
    added: set[Any] = set()

    def is_marked(atom: Any, among: set[Any] = marked) -> bool:
        return not hasattr(atom, "val") and atom in among

    for equation in jaxpr.eqns:
        marks = [is_marked(atom) for atom in equation.invars]
        if not any(marks):
            continue
        name, outputs = equation.primitive.name, [False] * len(equation.outvars)
        if name == "gather" and marks[1]:
            axes = equation.params["dimension_numbers"].start_index_map
            if len(axes) == 1:
                sizes.append(equation.invars[0].aval.shape[axes[0]])
        elif name in MOVES:
            outputs = [_is_whole(var) for var in equation.outvars]
        elif name == "add":
            added.update(equation.outvars)
        elif name == "select_n":  # i or, where it is negative, i + size: so NumPy counts
            outputs = [all(is_marked(atom, marked | added) for atom in equation.invars[1:])]
        for inner, names in _inside(equation, marks):
            within = _follow(inner, names, sizes)
            if len(within) == len(outputs):
                outputs = within
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
