"""The leading axis of all that a stage trains: its seeds, for each point of a sweep.

What is the same for all replicas because of where it comes from (published weights that nothing has
trained) has a leading axis of size 1: leaves are [replicas or 1, ...], as NumPy broadcasts.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.features import row_of
from jaxtl.paths import flatten, nest
from jaxtl.plan import Model, PyTree, Stage
from jaxtl.train.resolve.stage import Setup


@dataclasses.dataclass(frozen=True)
class Replicas:
    """Trainings of one stage that share a compiled program.

    Attributes:
        seeds: of each replica.
        setups: the resolved stage of each replica; they differ in swept numbers only.
        values: {field: [replicas] float32}, the swept numbers, which the program takes as arrays.
        rebuild: {field: []} -> the stage with these numbers, traced.
        swept: the replicas belong to points of a sweep, where all seeds of a point may fail.
        points: how many points; the replicas are the seeds of one after those of another.
    """

    seeds: tuple[int, ...]
    setups: tuple[Setup, ...]
    values: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    rebuild: Callable[[Mapping[str, jax.Array]], Stage] | None = None
    swept: bool = False
    points: int = 1

    @property
    def setup(self) -> Setup:
        """What all replicas share."""
        return self.setups[0]

    @property
    def shared(self) -> frozenset[str]:
        """Paths of the parameters that are held once, with a leading axis of size 1."""
        setups = {id(setup): setup for setup in self.setups}.values()
        if any(setup.origin != self.setup.origin for setup in setups):
            return frozenset()
        return frozenset.intersection(*(setup.shared for setup in setups))

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, chosen: slice | Sequence[int]) -> "Replicas":
        """Some of them; `points` is the caller's to set where they are of several."""
        places = np.arange(len(self))[chosen]
        return dataclasses.replace(
            self,
            seeds=tuple(self.seeds[i] for i in places),
            setups=tuple(self.setups[i] for i in places),
            values={name: column[places] for name, column in self.values.items()},
            points=1,
        )

    def at(self, values: Mapping[str, jax.Array]) -> Setup:
        """The setup of one replica inside the program, where its swept numbers are `values`."""
        if self.rebuild is None:
            return self.setup
        stage = self.rebuild(values)
        model = dataclasses.replace(self.setup.model, heads=stage.model.heads)
        stage = dataclasses.replace(stage, model=model)
        return dataclasses.replace(self.setup, stage=stage, model=model)

    def with_model(self, model: Model) -> "Replicas":
        """The same replicas with another model instead of the whole one, such as the rest of it."""

        def changed(setup: Setup) -> Setup:
            stage = dataclasses.replace(setup.stage, model=model)
            return dataclasses.replace(setup, stage=stage, model=model)

        return dataclasses.replace(self, setups=tuple(map(changed, self.setups)))

    def describe(self, replica: int) -> str:
        """`seed 3`, or `seed 3 at learning_rate=0.1`."""
        point = ", ".join(f"{name}={values[replica]:g}" for name, values in self.values.items())
        return f"seed {self.seeds[replica]}" + (f" at {point}" if point else "")


def over_seeds(setup: Setup, seeds: tuple[int, ...]) -> Replicas:
    """One replica for each seed, no sweep."""
    return Replicas(tuple(seeds), (setup,) * len(seeds))


def join_replicas(parts: Sequence[Replicas]) -> Replicas:
    """The replicas of one part after those of another; `points` is the caller's to set."""
    return dataclasses.replace(
        parts[0],
        seeds=sum((part.seeds for part in parts), ()),
        setups=sum((part.setups for part in parts), ()),
        values={
            name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values
        },
        points=1,
    )


def replica(tree: PyTree, number: int | jax.Array) -> PyTree:
    """The leaves [...] of one replica.

    Args:
        tree: leaves [replicas or 1, ...], arrays of NumPy or JAX.
        number: of the replica; may be traced.
    """
    return jax.tree.map(lambda leaf: row_of(leaf, 0 if leaf.shape[0] == 1 else number), tree)


def axes(tree: PyTree, count: int) -> tuple[PyTree, PyTree]:
    """What `jax.vmap` needs to give each of `count` replicas its leaves [...].

    Args:
        tree: leaves [count or 1, ...].

    Returns:
        (what the vmapped function is called with, its `in_axes`), both of the form of the tree. A
        leaf [count, ...] stays as it is, with the axis 0. A leaf [1, ...] of several replicas loses
        its leading axis and has the axis None, so that nothing is computed `count` times with it.
        Where no leaf has the axis 0, `jax.vmap` must be told `axis_size=count`.
    """
    leaves, form = jax.tree.flatten(tree)
    held_once = [leaf.shape[0] == 1 < count for leaf in leaves]
    given = [leaf[0] if once else leaf for leaf, once in zip(leaves, held_once, strict=True)]
    in_axes = [None if once else 0 for once in held_once]
    return form.unflatten(given), form.unflatten(in_axes)


def map_replicas(function: Callable[..., PyTree], trees: Sequence[PyTree], count: int) -> PyTree:
    """[count, ...] of function(*trees of a replica), one replica after another in a loop.

    As `jax.lax.map`, which would need `count` copies of the leaves [1, ...].

    Args:
        trees: leaves [count or 1, ...].
    """
    leaves, form = jax.tree.flatten(tuple(trees))
    held_once = [leaf.shape[0] == 1 < count for leaf in leaves]
    rows = [leaf for leaf, once in zip(leaves, held_once, strict=True) if not once]

    def run(_: None, row: list[jax.Array]) -> tuple[None, PyTree]:
        each, pairs = iter(row), zip(leaves, held_once, strict=True)
        return None, function(
            *form.unflatten(leaf[0] if once else next(each) for leaf, once in pairs)
        )

    return jax.lax.scan(run, None, rows, length=count)[1]


def take(tree: PyTree, rows: Sequence[int] | np.ndarray | slice) -> PyTree:
    """The leaves of some of the replicas, none of them twice.

    Args:
        tree: leaves [replicas or 1, ...]; those of size 1 stay as they are.
    """
    return jax.tree.map(lambda leaf: leaf if leaf.shape[0] == 1 else leaf[rows], tree)


def spread(leaf: Any, count: int) -> Any:
    """A leaf [1 or count, ...] as [count, ...]; a view where it is an array of NumPy."""
    xp = np if isinstance(leaf, np.ndarray) else jnp
    return leaf if leaf.shape[0] == count else xp.broadcast_to(leaf, (count, *leaf.shape[1:]))


def concatenate(
    trees: Sequence[PyTree], counts: Sequence[int], shared: Collection[str] = ()
) -> PyTree:
    """The replicas of one tree after those of another.

    Args:
        trees: leaves [replicas or 1, ...], nested by path if something is shared.
        counts: of the replicas of each.
        shared: paths of the leaves that are the same in all trees, and so stay [1, ...].
    """

    def join(*leaves: Any) -> Any:
        xp = np if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp
        return xp.concatenate([spread(*pair) for pair in zip(leaves, counts, strict=True)])

    if not shared:
        return jax.tree.map(join, *trees)
    first, *others = map(flatten, trees)
    return nest(
        {
            path: leaf if path in shared else join(leaf, *(other[path] for other in others))
            for path, leaf in first.items()
        }
    )
