"""The leading axis of all that a stage trains: its seeds, for each point of a sweep."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from jaxtl.plan import Model, Stage
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
            return dataclasses.replace(setup, stage=stage, model=model, convolutions=None)

        return dataclasses.replace(self, setups=tuple(map(changed, self.setups)))

    def describe(self, replica: int) -> str:
        """`seed 3`, or `seed 3 at learning_rate=0.1`."""
        point = ", ".join(f"{name}={values[replica]:g}" for name, values in self.values.items())
        return f"seed {self.seeds[replica]}" + (f" at {point}" if point else "")


def over_seeds(setup: Setup, seeds: tuple[int, ...]) -> Replicas:
    """One replica for each seed, no sweep."""
    return Replicas(tuple(seeds), (setup,) * len(seeds))
