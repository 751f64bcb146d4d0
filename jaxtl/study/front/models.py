"""The trained models of a run's directory, read when they are asked for."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtl.export.rebuild import SavedRun, choose, read_run
from jaxtl.plan import Experiment
from jaxtl.train.store.blocks import blocks_of
from jaxtl.train.store.identity import seed_digest

if TYPE_CHECKING:
    from jaxtl.export.predictor import Predictor


class Models:
    """The models of a run's directory, read when they are asked for.

    Args:
        experiment: None for that of the run's file.
    """

    def __init__(self, directory: Path, experiment: Experiment | None):
        self.directory, self._experiment = directory, experiment
        self.temporary: Any = None  # goes with this value
        self._trained = _digests(directory)
        self._loaded: dict[tuple, Predictor] = {}

    def load(self, arm: str | None, stage: str | None, seed: int | None) -> "Predictor":
        """As `jaxtl.load`, which each model is read by once."""
        key = arm, stage, seed
        if key not in self._loaded:
            self._loaded[key] = self._load(*key)
        return self._loaded[key]

    @functools.cached_property
    def saved(self) -> SavedRun:
        return read_run(self.directory, self._experiment)

    def _load(self, arm: str | None, stage: str | None, seed: int | None) -> "Predictor":
        from jaxtl.export.predictor import restore

        run = read_run(self.directory, self.saved.experiment)
        run = run._replace(file=self.saved.file)
        choice = choose(run, arm, stage, seed)
        for past in choice.stages:
            key = past.name, choice.seed
            if key in self._trained and _digests(self.directory).get(key) != self._trained[key]:
                raise ValueError(
                    f"stage {past.name!r} in {self.directory} was trained anew, as something else, "
                    "since this result was made; jaxtl.open gives what is there now"
                )
        return restore(run, choice)


def _digests(directory: Path) -> dict[tuple[str, int], str]:
    """{(stage, seed): digest of what is trained there}."""
    folders = [path for path in (directory / "stages").glob("*") if path.is_dir()]
    return {
        (folder.name, seed): seed_digest([block.record["identity"]], seed)
        for folder in folders
        for block in blocks_of(folder)
        for seed in block.seeds
    }
