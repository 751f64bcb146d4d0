"""Source stages taken from another run's directory instead of trained."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxtl.paths import flatten, join
from jaxtl.plan import Experiment
from jaxtl.train.check import Node
from jaxtl.train.checkpoint import Checkpoints
from jaxtl.train.identity import read_json
from jaxtl.train.loop import Trained, abstract_state, read_curves
from jaxtl.train.setup import Setup, load_problems


class SourceRun:
    """Finished stages of another run, addressed by their names.

    Args:
        directory: <workdir>/<experiment> of that run.
        seeds: this run's; each must be one of that run's.

    Attributes:
        stages: {name: stage.json} of its finished stages that this run takes; filled by `check`.

    Raises:
        ValueError: the directory holds no run.
    """

    def __init__(self, directory: Path, seeds: tuple[int, ...]):
        self.directory, self.seeds = directory, seeds
        self.stages: dict[str, dict] = {}
        if not (directory / "stages").is_dir():
            raise ValueError(
                f"run.source_run: {directory} holds no run; expected a directory "
                "<workdir>/<experiment> with stages/ in it"
            )

    def check(self, nodes: Mapping[str, Node], experiment: Experiment, arms: Iterable[str]) -> None:
        """Find the source stages (those that another stage follows) that the run holds.

        Raises:
            ValueError: it holds none of them, a seed is missing, or parameters do not fit.
        """
        sources = {stage.name for arm in arms for stage in experiment.arms[arm][:-1]}
        there = {
            path.parent.name: read_json(path)
            for path in sorted((self.directory / "stages").glob("*/stage.json"))
        }
        finished = {name: record for name, record in there.items() if record["finished"]}
        self.stages = {name: finished[name] for name in sorted(sources & finished.keys())}
        if not self.stages:
            raise ValueError(
                f"run.source_run: {self.directory} has no finished stage among this experiment's "
                f"source stages ({', '.join(sorted(sources)) or 'none'}); it has finished "
                f"{', '.join(finished) or 'none'}"
            )
        problems = [p for name in self.stages for p in self._problems(nodes[name].setup)]
        if problems:
            raise ValueError("\n".join(problems))

    def _problems(self, setup: Setup) -> list[str]:
        name = setup.stage.name
        seeds = self.stages[name]["identity"]["seeds"]
        if missing := sorted(set(self.seeds) - set(seeds)):
            return [f"stage {name!r} of {self.directory} lacks the seeds {missing}; it has {seeds}"]
        with Checkpoints(self._folder(name)) as checkpoints:
            if not checkpoints.steps():
                return [f"stage {name!r} of {self.directory} has no readable checkpoint"]
            try:
                stored = checkpoints.shapes(checkpoints.steps()[0])
                stored = flatten(stored["trainable"]) | flatten(stored["frozen"])
            except Exception as error:  # whatever a damaged file makes Orbax raise
                return [f"the checkpoint of stage {name!r} in {self.directory} is damaged: {error}"]
        there = {
            path: jax.ShapeDtypeStruct(tuple(leaf.shape)[1:], leaf.dtype)
            for path, leaf in stored.items()
        }
        here = flatten(setup.params)
        lines = load_problems(here, there, set())
        return (
            [
                f"cannot load {len(lines)} of {len(here)} parameters of stage {name!r} from "
                f"{self.directory}:\n  " + "\n  ".join(lines)
            ]
            if lines
            else []
        )

    def _folder(self, name: str) -> Path:
        return self.directory / "stages" / name / "checkpoints"

    def load(self, setup: Setup) -> Trained:
        """The stage as that run left it, for this run's seeds."""
        name = setup.stage.name
        record = self.stages[name]
        seeds = record["identity"]["seeds"]
        abstract = jax.eval_shape(lambda: abstract_state(setup, tuple(seeds)))
        with Checkpoints(self._folder(name)) as checkpoints:
            step = checkpoints.steps()[0]
            try:
                full = checkpoints.restore(step, abstract)
            except Exception as error:  # whatever a damaged file makes Orbax raise
                raise ValueError(
                    f"cannot read checkpoint {step} of stage {name!r} in {self.directory}: {error}"
                ) from error
        rows = jnp.asarray([seeds.index(seed) for seed in self.seeds])
        params, state = jax.tree.map(
            lambda leaf: leaf[rows], (join(full["trainable"], full["frozen"]), full["state"])
        )
        curves = {
            key: values if key == "step" else values[:, rows]
            for key, values in read_curves(self.directory / "stages" / name).items()
        }
        return Trained(setup, params, state, curves, 0.0, float("nan"))
