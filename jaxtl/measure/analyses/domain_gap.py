"""How far the domains are apart in the features of an arm."""

import functools
from collections.abc import Mapping

import jax
import numpy as np

from jaxtl.losses import mmd
from jaxtl.measure.frozen import outputs_at_end
from jaxtl.measure.results import Comparison, TrainedArm
from jaxtl.plan import Analysis, Evaluation, Experiment, Table
from jaxtl.transferability import proxy_a_distance

EXAMPLES = 1000


def domain_gap() -> Analysis:
    """Distances in the features between the evaluations of the sources and the primary one."""
    return Analysis("domain_gap", measure, panels, in_summary=True, in_sweep=False)


def measure(arm: TrainedArm) -> dict[str, np.ndarray]:
    """{"<evaluation>/a_distance", "<evaluation>/mmd": [seeds]} between it and the primary one.

    The proxy A-distance and the unbiased squared MMD with bandwidths of 1/4 to 4 times the mean
    squared distance, of the features of up to 1,000 examples of each. Nothing where either has a
    single example.
    """
    model, evals, gaps = arm.stages[-1].model, arm.experiment.evals, {}

    @functools.cache
    def features(name: str) -> list[np.ndarray]:
        """[n, features] of each seed."""
        table, rows = evals[name].dataset.table(), _rows(evals[name], arm.seeds)
        each = [
            outputs_at_end(arm, i, table.inputs, chosen, "features")
            for i, chosen in enumerate(rows)
        ]
        return [np.float32(leaf.reshape(len(leaf), -1)) for leaf in each]

    primary = arm.experiment.primary.evaluation
    for name, evaluation in source_evaluations(arm.experiment).items():
        if evaluation.head not in model.heads or any(
            len(_rows(evals[each], arm.seeds)[0]) < 2 for each in (name, primary)
        ):
            continue
        pairs = zip(features(name), features(primary), strict=True)
        distances = [jax.device_get(_distances(*pair)) for pair in pairs]
        for key in distances[0]:
            gaps[f"{name}/{key}"] = np.array([of_seed[key] for of_seed in distances], np.float64)
    return gaps


def source_evaluations(experiment: Experiment) -> dict[str, Evaluation]:
    """Evaluations of another domain than the primary one by its head.

    Empty unless a stage of the experiment adapts: it has domains without labels that name a head.
    """
    primary = experiment.primary.evaluation
    stages = [stage for stages in experiment.arms.values() for stage in stages]
    if primary not in experiment.evals or all(
        d.labelled or not d.heads for s in stages for d in s.domains
    ):
        return {}
    target = experiment.evals[primary]
    return {
        name: evaluation
        for name, evaluation in experiment.evals.items()
        if evaluation.head == target.head and evaluation.dataset != target.dataset
    }


def _rows(evaluation: Evaluation, seeds: tuple[int, ...]) -> list[np.ndarray]:
    """The first examples of each seed, as many of each."""
    rows = [evaluation.dataset.rows(seed)[:EXAMPLES] for seed in seeds]
    fewest = min(map(len, rows))
    return [each[:fewest] for each in rows]


@jax.jit
def _distances(source: jax.Array, target: jax.Array) -> dict[str, jax.Array]:
    return {
        "a_distance": proxy_a_distance(source, target),
        "mmd": mmd(source, target, unbiased=True),
    }


def panels(arms: Mapping[str, Mapping[str, np.ndarray]], comparison: Comparison) -> dict:
    note = (
        "Distances in the features at the end of each arm between that evaluation's examples and "
        f"those of {comparison.primary.evaluation}: the proxy A-distance of a linear domain "
        "classifier (0: cannot tell, 2: always can) and the squared MMD. The baseline is "
        f"{comparison.baseline}."
    )
    return {"domain_gap": Table("Distance of the domains", note, arms)}
