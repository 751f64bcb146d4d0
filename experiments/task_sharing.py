"""Five labels of one digit at once: what should the tasks share, and what should be their own?

    python launch.py --experiment=task_sharing

The score is the mean of four accuracies and the r2 of ink. `lora` and `longer` go on from `shared`
for as many steps: a low-rank update a task on its frozen backbone, or nothing new.

Result: mean/score, 5 seeds: shared 0.856 [0.842, 0.871], lora 0.864, separate 0.873, cross_stitch
0.879, longer 0.881, mmoe 0.909, attention 0.914, embedding 0.922, ple 0.926 [0.918, 0.933]; all
positive. Nearly all of it is ink, whose r2 of 0.65 becomes 0.91 to 0.96 where gates, masks or
vectors multiply features; accuracies differ by up to 0.03. 1119 s on 2 CPU cores that many others
used, 638 s of it compiling.
"""

import dataclasses
import functools

import numpy as np
import optax

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import Derived, classification, regression
from jaxtl.models import adapters, classes
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
    images: int = 200
    batch_size: int = 64
    steps: int = 300


def build(config: Config) -> Experiment:
    digits = data.digits()
    for task, (compute, names) in TASKS.items():
        digits = digits.relabel(task, compute, names)
    few, adam = digits.train.take(config.images), optax.adam(1e-3)
    columns = {task: "label" if task == "digit" else task for task in HEADS}
    domains, shared = [labelled(few, columns)], models.mlp(HEADS, (64, 64))
    on_hidden = functools.partial(adapters.lora, targets=["backbone/dense_1/kernel"], rank=4)
    own = transfer.grouped({"all": (("lora_for_.*", "heads/.*"), adam)})
    apart = transfer.partial(adam, freeze=("backbone/.*/units",))  # which stay the identity
    apart = dataclasses.replace(apart, fresh_frozen=True)
    stage = functools.partial(
        Stage, domains=domains, batch_size=config.batch_size, num_steps=config.steps
    )
    ways = {
        "shared": shared,
        "mmoe": models.mmoe(shared, "dense_1", experts=4),
        "ple": models.ple(shared, "dense_0"),
        "cross_stitch": models.cross_stitch(shared, "dense_0"),
        "attention": models.task_attention(shared, "dense_0"),
        "embedding": models.task_embedding(shared, "dense_0"),
    }
    arms = {name: [stage(name, model, transfer.full(adam))] for name, model in ways.items()}
    networks = models.cross_stitch(shared, "dense_0", own=1.0)
    arms["separate"] = [stage("separate", networks, apart)]
    adapted = models.per_task(shared, on_hidden, "lora")
    arms["longer"] = [*arms["shared"], stage("longer", shared, transfer.full(adam))]
    arms["lora"] = [*arms["shared"], stage("lora", adapted, own, fresh=("lora_for_.*",))]
    evals = {
        task: (regression if task == "ink" else classification)(digits.test, task, column=column)
        for task, column in columns.items()
    }
    scores = ["ink/r2" if task == "ink" else f"{task}/accuracy" for task in HEADS]
    mean = Derived(lambda metrics: sum(metrics[score] for score in scores) / len(scores), "max")
    return Experiment(
        arms=arms,
        baseline="shared",
        evals=evals,
        primary=maximize("mean", "score"),
        derived={"mean/score": mean},
    )
