"""What the losses of several tasks weighed, step by step."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from jaxtl.measure.analyses.curves import Curves, chain_lines
from jaxtl.measure.results import Comparison, TrainedArm
from jaxtl.plan import Analysis, Curve, Line, Panel, Stage

WEIGHT = re.compile(r"weight_\d+")
MOST_ARMS = 6  # whose lines can be told apart on the same axes


def task_weights() -> Analysis:
    """Each task's part of the weights, and of the weighted losses, by step."""
    return Analysis("task_weights", measure, panels)


def measure(arm: TrainedArm) -> Curves | None:
    """{stage: {"step": [t], metric: [t, seeds]}}, metrics that name a task."""
    parts = {}
    for stage in arm.stages:
        logged = arm.trained[stage.name].curves
        numbers = [key for key in logged if WEIGHT.fullmatch(key)]
        numbers.sort(key=lambda key: int(key.removeprefix("weight_")))
        if not numbers:
            continue
        tasks = task_losses_logged(stage, len(numbers), logged)
        weights = np.stack([np.asarray(logged[key], np.float64) for key in numbers])
        parts[stage.name] = {"step": np.asarray(logged["step"])}
        shown = dict(zip(tasks, _parts(weights), strict=True))
        parts[stage.name] |= {f"weight of {task}": part for task, part in shown.items()}
        if all(key in logged for key in tasks.values()):
            losses = np.stack([np.asarray(logged[key], np.float64) for key in tasks.values()])
            shown = dict(zip(tasks, _parts(weights * losses), strict=True))
            parts[stage.name] |= {f"weighted loss of {task}": part for task, part in shown.items()}
    return parts or None


def task_losses_logged(stage: Stage, count: int, logged: Mapping[str, object]) -> dict[str, str]:
    """{task: the key under which its loss is logged}, in the order of the losses.

    Tasks are the heads of a stage, its domains or pairs of both, whichever are logged and are as
    many as the weights; numbers where none are.
    """
    named = {name for domain in stage.domains for name in domain.heads}
    heads = [name for name in stage.model.heads if name in named]
    datasets = [domain.dataset.name for domain in stage.domains]
    distinct = len(set(datasets)) == len(datasets)
    domains = datasets if distinct else [f"domain {d}" for d in range(len(datasets))]
    choices = (
        {head: f"{head}_loss" for head in heads},
        {name: f"domain_{d}_loss" for d, name in enumerate(domains)},
        {f"{h}, {name}": f"{h}_{d}_loss" for h in heads for d, name in enumerate(domains)},
    )
    for tasks in choices:
        if len(tasks) == count and all(key in logged for key in tasks.values()):
            return tasks
    return {f"task {number}": "" for number in range(count)}


def panels(arms: Mapping[str, Curves], comparison: Comparison) -> dict[str, Panel]:
    keys = list(dict.fromkeys(key for arm in arms.values() for c in arm.values() for key in c))
    shown = {
        "task_weights": (
            "Weights of the tasks",
            "Each task's part of the weights of all, which are summed without their signs.",
            "weight of ",
        ),
        "weighted_losses": (
            "What the tasks contribute",
            "Each task's part of the weighted sum of losses, whatever the units of a loss.",
            "weighted loss of ",
        ),
    }
    made = {}
    for name, (title, note, prefix) in shown.items():
        metrics = [key for key in keys if key.startswith(prefix)]
        if lines := side_by_side(chain_lines(arms, comparison, metrics)):
            # Some rules have negative weights; a few odd steps of theirs do not set the scale.
            least = min(np.nanpercentile(line.values, 1) for line in lines)
            limits = (float(np.floor(10 * min(least + 0.02, 0)) / 10), 1.0)
            made[name] = Curve(title, note, lines, x_label="step", limits=limits)
    return made


def side_by_side(lines: Sequence[Line]) -> list[Line]:
    """The lines, those of many arms in columns of a few each."""
    by_column: dict[str, list[str]] = {}
    for line in lines:
        names = by_column.setdefault(line.column, [])
        names += [line.name] * (line.name not in names)
    headings = {}
    for column, names in by_column.items():
        if len(names) > MOST_ARMS:
            count = -(-len(names) // MOST_ARMS)
            for part in np.array_split(names, count):
                headings |= {(column, name): f"{part[0]} to {part[-1]}" for name in part}
    return [
        dataclasses.replace(line, column=headings.get((line.column, line.name), line.column))
        for line in lines
    ]


def _parts(values: np.ndarray) -> Sequence[np.ndarray]:
    """Of [tasks, t, seeds], each part of the sum of absolute values; NaN where that is 0."""
    total = np.abs(values).sum(0)
    return values / np.where(total > 0, total, np.nan)
