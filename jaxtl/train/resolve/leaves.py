"""The leaves that a stage starts from: initialised, or loaded; on the devices, each in one copy."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxtl.paths import flatten
from jaxtl.plan import Params, PyTree, State
from jaxtl.train.mesh import place, shard_state
from jaxtl.train.resolve.replicas import Replicas, axes, spread
from jaxtl.train.resolve.stage import Setup, initialise


def initial(replicas: Replicas, mesh: Mesh) -> dict[str, jax.Array]:
    """{path: leaf [replicas, ...]} of what the stage initialises."""
    setup = replicas.setup
    if not setup.fresh:  # nor is the program traced that would compute nothing
        return {}

    def fresh(seed: jax.Array) -> dict[str, jax.Array]:
        leaves = map(flatten, initialise(setup.stage, setup.inputs, setup.shape, seed))
        return {path: leaf for tree in leaves for path, leaf in tree.items() if path in setup.fresh}

    return in_each_replica(fresh, len(replicas), mesh, np.int32(replicas.seeds))


def load(setup: Setup, source: tuple[Params, State] | None) -> dict[str, Any]:
    """{path: leaf [replicas or 1, ...]} of what the stage does not initialise, where it is.

    Args:
        source: (params, state) of the stage before.
    """
    if source is None:
        return {path: np.asarray(leaf)[None] for path, leaf in setup.published.items()}
    stored = flatten(source[0]) | flatten(source[1].statistics)
    leaves = flatten(setup.params) | flatten(setup.state.statistics)
    return {path: stored[path] for path in leaves if path not in setup.fresh}


def loaded(replicas: Replicas, leaves: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Leaves [replicas or 1, ...] by path as the stage holds them, [1, ...] if it shares them.

    The memory of those that it changes is nobody else's, as dispatches take it over.
    """
    held: dict[str, jax.Array] = {}
    for path in sorted(leaves):  # one order for all processes, which place each leaf together
        leaf = leaves[path]
        leaf = leaf if path in replicas.shared else spread(leaf, len(replicas))
        held[path] = place(leaf, donated=path not in replicas.setup.constant)
    return held


def in_each_replica(
    function: Callable[..., PyTree], count: int, mesh: Mesh | None, *trees: PyTree
) -> PyTree:
    """[count, ...] of function(*trees of a replica), on the mesh if one is given.

    Args:
        trees: leaves [count or 1, ...].
    """

    @jax.jit
    def run(*trees: PyTree) -> PyTree:
        given, in_axes = axes(trees, count)
        results = jax.vmap(function, in_axes, axis_size=count)(*given)
        if mesh is None:
            return results
        return jax.lax.with_sharding_constraint(results, shard_state(results, mesh))

    return run(*trees)
