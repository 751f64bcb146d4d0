"""Five labels of one digit, trained alone and in pairs: which task helps which?

    python launch.py --experiment=task_pairs

The tasks are the digit, odd or even, 0-4 or 5-9, the number of closed strokes, and how much ink
there is, a number. Nine tenths of each one's labels are missing, others for each task. Arms are
named by what trains; "Which task helps which" in the report compares them.

Result: gains of 20 ordered pairs, 5 seeds: digit helps high, +0.010 [0.004, 0.016] accuracy; ink
hurts digit, -0.018 [-0.031, -0.005]; the other 18 are undecided (one in 20 is decided by chance).
608 s on 2 busy CPU cores, 378 s of it compiling. First tried with all labels on the same 200 images
(--config.images=200 --config.missing=0 --config.steps=300) no task helps another; ink hurts
digit, odd and high by 0.02 each, and digit hurts ink by 0.03 of r2: 4 decided of 20, 267 s.
"""

import dataclasses
import itertools

import numpy as np
import optax

from jaxtl import data, models
from jaxtl.measure import analyses
from jaxtl.methods import transfer
from jaxtl.metrics import classification, regression
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize

LOOPS = np.array([1, 0, 0, 0, 1, 0, 1, 0, 2, 1])  # closed strokes of the digits 0, 1, ..., 9
TASKS = {  # what each is computed from, and its classes
    "odd": (lambda table: table.labels["label"] % 2, ["even", "odd"]),
    "high": (lambda table: table.labels["label"] // 5, ["0-4", "5-9"]),
    "loops": (lambda table: LOOPS[table.labels["label"]], ["none", "one", "two"]),
    "ink": (lambda table: (table.inputs.mean((1, 2, 3)) - 78) / 8.6, None),
}
HEADS = {
    "digit": classes(10),
    "odd": classes(2),
    "high": classes(2),
    "loops": classes(3),
    "ink": models.regression(),
}


@dataclasses.dataclass(frozen=True)
class Config:
    images: int = 1_000
    missing: float = 0.9
    batch_size: int = 64
    steps: int = 600


def build(config: Config) -> Experiment:
    digits = data.digits()
    for task, (compute, names) in TASKS.items():
        digits = digits.relabel(task, compute, names)
    mostly_hidden, adam = digits.train, optax.adam(1e-3)
    columns = {task: "label" if task == "digit" else task for task in HEADS}
    for column in columns.values():
        mostly_hidden = mostly_hidden.hide(column, config.missing)
    mostly_hidden = mostly_hidden.take(config.images)
    model = models.mlp(HEADS, (64, 64))

    def arm(*tasks):
        stage = Stage(
            "_".join(tasks),
            model,
            transfer.full(adam),
            domains=[labelled(mostly_hidden, {task: columns[task] for task in tasks})],
            batch_size=config.batch_size,
            num_steps=config.steps,
        )
        return {stage.name: [stage]}

    arms = {}
    for task in HEADS:
        arms |= arm(task)
    for first, second in itertools.combinations(HEADS, 2):
        arms |= arm(first, second)
    evals = {
        task: (regression if task == "ink" else classification)(digits.test, task, column=column)
        for task, column in columns.items()
    }
    return Experiment(
        arms=arms,
        baseline="digit",
        evals=evals,
        primary=maximize("digit", "accuracy"),
        analyses=[analyses.task_gains()],
    )
