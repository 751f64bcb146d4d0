"""Which inputs of a function are indices, token ids say, and into how many entries."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from jaxtl.plan import PyTree

ADDED, INDEX = 1, 2
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
            _follow(traced, [INDEX * (j == first + i) for j in range(len(traced.invars))], sizes)
        if sizes:
            bounds[jax.tree_util.keystr(path)] = min(sizes)
    return bounds


def _follow(jaxpr: Any, given: Sequence[int], sizes: list[int]) -> list[int]:
    """Collect the sizes of the tables that indices are looked up in.

    Args:
        given: for each input `INDEX` if it holds numbers of the leaf, `ADDED` if something was
            added to them, else 0.

    Returns:
        The same for each output.
    """
    marks = dict(zip(jaxpr.invars, given, strict=True))

    def mark_of(atom: Any) -> int:
        return 0 if hasattr(atom, "val") else marks.get(atom, 0)

    for equation in jaxpr.eqns:
        name, inputs = equation.primitive.name, [mark_of(atom) for atom in equation.invars]
        if not any(inputs):
            continue
        outputs = [0] * len(equation.outvars)
        if name == "gather" and inputs[1] == INDEX:
            axes = equation.params["dimension_numbers"].start_index_map
            if len(axes) == 1:
                sizes.append(equation.invars[0].aval.shape[axes[0]])
        elif name in MOVES and np.issubdtype(equation.outvars[0].aval.dtype, np.integer):
            outputs = [max(inputs)]
        elif name == "add":
            outputs = [ADDED]
        elif name == "select_n" and all(inputs[1:]):  # i or, if it is negative, i + size
            outputs = [INDEX]
        for inner in jex.jaxprs_in_params(equation.params):
            size = len(inner.invars)
            if 0 < size <= len(inputs):  # `cond` takes the index of its branch first
                results = _follow(inner, inputs[-size:], sizes)
                outputs = results if len(results) == len(outputs) else outputs
        marks.update(zip(equation.outvars, outputs, strict=True))
    return [mark_of(atom) for atom in jaxpr.outvars]
