"""Which task helps which: what a task gains when another one is trained beside it."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from jaxtl.measure.declarations import declared_metrics, taught_heads
from jaxtl.measure.results import Comparison, TrainedArm
from jaxtl.measure.verdict import differences, estimate, verdict
from jaxtl.plan import Analysis, Grid, Matrix, Panel, Table

Tasks = Mapping[str, np.ndarray]
"""{task, a head: the metric that it is judged by, such as "odd/accuracy"}."""


def task_gains(kinds: Sequence[str] = ("accuracy", "r2")) -> Analysis:
    """What each task gains from each other one, of arms that train one task or two.

    A task is a head that the labels of an arm's last stage train. The first arm that trains a task
    alone is what the first arm that trains it beside another one is compared with, seed by seed.

    Args:
        kinds: of metrics. A task is judged by the first that an evaluation of its head has, where
            that says which way is better.
    """
    measure = functools.partial(measure_tasks, tuple(kinds))
    return Analysis("task_gains", measure, panels, in_summary=True)


def measure_tasks(kinds: Sequence[str], arm: TrainedArm) -> dict[str, np.ndarray] | None:
    heads, declared = taught_heads(arm.stages[-1]), declared_metrics(arm.experiment)
    if len(heads) not in (1, 2):
        return None
    tasks = {}
    for name, evaluation in arm.experiment.evals.items():
        keys = [f"{name}/{kind}" for kind in kinds if f"{name}/{kind}" in declared]
        if keys and evaluation.head in heads:
            tasks.setdefault(evaluation.head, np.array(keys[0]))
    return tasks if tasks.keys() == heads else None


def panels(arms: Mapping[str, Tasks], comparison: Comparison) -> dict[str, Panel]:
    first: dict[frozenset[str], str] = {}
    for name, tasks in arms.items():
        first.setdefault(frozenset(tasks), name)
    gains, verdicts = {}, {}
    for chosen, together in first.items():
        for task in sorted(chosen) if len(chosen) == 2 else ():
            if (alone := first.get(frozenset([task]))) is None:
                continue
            key, (partner,) = str(arms[together][task]), chosen - {task}
            values = [_values(comparison, name, key) for name in (together, alone)]
            sign = {metric.key: metric.sign for metric in comparison.declared}[key]
            gains[task, partner] = sign * differences(*values)
            verdicts[task, partner] = verdict(gains[task, partner], *values)
    if not gains:
        return {}
    heads = dict.fromkeys(head for tasks in arms.values() for head in tasks)
    rows = [head for head in heads if any(task == head for task, _ in gains)]
    columns = [head for head in heads if any(partner == head for _, partner in gains)]
    means = [[estimate(gains.get((row, column), ())).mean for column in columns] for row in rows]
    framed = [
        (rows.index(task), columns.index(partner))
        for (task, partner), decided in verdicts.items()
        if decided != "undecided"
    ]
    kinds = dict.fromkeys(
        str(key).split("/")[-1] for tasks in arms.values() for key in tasks.values()
    )
    quantity = " or ".join(kinds)
    note = (
        f"What the row's task gains in {quantity} when the column's task is trained beside it, "
        "against training alone; mean over seeds, paired by seed. Framed: the 95% interval "
        f"excludes 0. {in_words(verdicts)}"
    )
    look = {"quantity": f"gain in {quantity}", "row": "task", "column": "trained with"}
    grid = Grid(rows, columns, np.array(means, np.float64), framed)
    table = {f"{task} with {partner}": {"gain": gain} for (task, partner), gain in gains.items()}
    return {
        "task_gains": Matrix(
            "Which task helps which", note, {"": grid}, diverging=True, digits=3, **look
        ),
        "pairs": Table(
            "Gains of tasks in pairs",
            "Mean and 95% interval.",
            table,
            "task",
            signed=True,
            folded=True,
        ),
    }


def _values(comparison: Comparison, arm: str, key: str) -> np.ndarray:
    unknown = np.full(len(comparison.seeds), np.nan)
    return np.asarray(comparison.arms[arm].metrics.get(key, unknown))


def in_words(verdicts: Mapping[tuple[str, str], str]) -> str:
    """Who is helped by whom, and who is hurt."""
    parts = []
    for decided, title in (("positive", "Helped"), ("negative", "Hurt")):
        by_task: dict[str, list[str]] = {}
        for (task, partner), value in verdicts.items():
            if value == decided:
                by_task.setdefault(task, []).append(partner)
        each = "; ".join(f"{task} by {', '.join(names)}" for task, names in by_task.items())
        parts.append(f"{title}: {each or 'none'}.")
    undecided = sum(value == "undecided" for value in verdicts.values())
    chance = "about one in twenty without any effect is framed by chance"
    return " ".join([*parts, f"Undecided: {undecided} of {len(verdicts)}; {chance}."])
