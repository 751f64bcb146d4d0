"""Five tasks one after the other, MNIST with its pixels in five orders: what is left of the first?

    pip install 'jaxtl[prepare]'
    python launch.py --prepare=mnist
    python launch.py --experiment=forgetting --seeds=3

One head for all tasks. `ewc` holds what mattered to former tasks (a strength picked with the last
10,000 training digits), `lwf` keeps its old answers to new images, `joint` is the ceiling.

Result: mean/accuracy at the end: fine_tuning 0.718 [0.673, 0.762], lwf 0.655 [0.635, 0.675], ewc
0.946 [0.933, 0.959], joint 0.966 [0.963, 0.968]; 3 seeds, 692 s on 2 very busy CPU cores.
"""

import dataclasses
import itertools

import optax

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.plan import Experiment, Stage, labelled, maximize


@dataclasses.dataclass(frozen=True)
class Config:
    tasks: int = 5
    hidden: int = 400
    batch_size: int = 64
    steps: int = 1_000
    learning_rate: float = 1e-3
    strength: float = 1_000.0
    fisher_examples: int = 500


def build(config: Config) -> Experiment:
    mnist = data.tfds("mnist")
    tasks = {f"task_{i}": data.permuted(mnist, i) for i in range(1, config.tasks + 1)}
    model = models.mlp({"digit": models.classes(10)}, (config.hidden, config.hidden))
    adam, names = optax.adam(config.learning_rate), list(tasks)
    full, ewc = transfer.full(adam), transfer.ewc(adam, strength=config.strength)
    lwf = transfer.lwf(adam, heads=["digit"], strength=1.0, temperature=2.0)

    def stage(name, method, domains, trains, reads=()):
        return Stage(
            name,
            model,
            method,
            domains=domains,
            batch_size=config.batch_size,
            num_steps=config.steps,
            trains=trains,
            data=dict(reads),
        )

    def chain(arm, method, reads_former=False):
        first = [labelled(tasks["task_1"].train, "digit")]
        stages = [stage("task_1", full, first, trains=["task_1"])]
        for former, name in itertools.pairwise(names):
            few = labelled(tasks[former].train.take(config.fisher_examples), "digit")
            domains = [labelled(tasks[name].train, "digit")]
            former_data = {"former": few} if reads_former else {}
            stages.append(stage(f"{arm}_{name}", method, domains, trains=[name], reads=former_data))
        return stages

    all_tasks = [labelled(task.train, "digit", weight=1 / len(tasks)) for task in tasks.values()]
    arms = {
        "fine_tuning": chain("fine_tuning", full),
        "lwf": chain("lwf", lwf),
        "ewc": chain("ewc", ewc, reads_former=True),
        "joint": [stage("joint", full, all_tasks, trains=names)],
    }
    evals = {name: classification(task.test, "digit") for name, task in tasks.items()}
    mean = {"mean/accuracy": lambda m: sum(m[f"{name}/accuracy"] for name in names) / len(names)}
    return Experiment(
        arms=arms,
        baseline="fine_tuning",
        evals=evals,
        primary=maximize("mean", "accuracy"),
        derived=mean,
    )
