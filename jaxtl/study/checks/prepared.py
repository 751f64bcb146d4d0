"""Whether the data are there that an experiment reads, asked before any work."""

import contextlib
import os
from collections.abc import Iterable, Iterator

from jaxtl.data import Dataset
from jaxtl.data.prepared.tfds_source import missing
from jaxtl.plan import Data, Experiment
from jaxtl.study.traced import Sweep


def check_prepared(experiment: Experiment, arms: Iterable[str], sweep: Sweep | None) -> None:
    """Look for the prepared datasets of some arms, of what is measured, and of a sweep's points.

    Then files are fetched that they name, such as a tokenizer.

    Raises:
        ValueError: some cannot be read: all of them, and the command that prepares them.
    """
    arms = tuple(arms)
    experiments = [experiment, *(_points(sweep) if sweep else ())]
    data = (each for experiment in experiments for each in _datasets(experiment, arms))
    datasets = list(dict.fromkeys(each for each in data if isinstance(each, Dataset)))
    if lines := missing(datasets) or _unreachable(datasets):
        raise ValueError("\n".join(lines))


def _unreachable(datasets: Iterable[Dataset]) -> list[str]:
    """Why files cannot be had that are fetched when they are opened."""
    arguments = {a for each in datasets for step in each.steps for a in step.arguments}
    lines = []
    for path in arguments:
        try:
            if isinstance(path, os.PathLike):
                os.fspath(path)
        except ValueError as error:
            lines.append(str(error))
    return lines


def _points(sweep: Sweep) -> Iterator[Experiment]:
    for values in sweep.points:
        if any(isinstance(value, str) for value in values.values()):  # numbers name no dataset
            with contextlib.suppress(Exception):  # whoever plans the sweep names the point
                yield sweep.build(values)


def _datasets(experiment: Experiment, arms: tuple[str, ...]) -> Iterator[Data]:
    stages = [stage for arm in arms for stage in experiment.arms.get(arm, ())]
    for stage in stages:
        yield from (domain.dataset for domain in (*stage.domains, *stage.data.values()))
    yield from (evaluation.dataset for evaluation in experiment.evals.values())
    for criterion in experiment.criteria.values():
        yield from (domain.dataset for domain in criterion.domains)
