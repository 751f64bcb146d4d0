"""MNIST to USPS with five labels a class: share the layers, or train them for both tasks?

    pip install 'jaxtl[prepare]'
    python launch.py --prepare=mnist,usps
    python launch.py --experiment=shared_layers

`partial` freezes the shared layers, `joint_*` minimises L_shared + lambda * L_task on both tasks,
`all_labels` is the ceiling: USPS from scratch with all of its 7,291 labels.

Result: target/accuracy: scratch 0.752 [0.723, 0.781], full 0.823, partial 0.847 [0.836, 0.858],
joint_1 0.827 [0.788, 0.865], all_labels 0.964; 5 seeds, 741 s on 2 busy CPU cores.
"""

import dataclasses

import optax

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize


@dataclasses.dataclass(frozen=True)
class Config:
    labels_per_class: int = 5
    batch_size: int = 64
    source_steps: int = 2_000
    target_steps: int = 300
    learning_rate: float = 1e-3
    lambdas: tuple[float, ...] = (0.1, 1.0, 10.0)


def build(config: Config) -> Experiment:
    mnist, usps = data.tfds("mnist"), data.tfds("usps").resize((28, 28))
    few = usps.train.few(config.labels_per_class)
    model = models.conv_net({"source": classes(10), "target": classes(10)}, padding="VALID")
    adam, steps = optax.adam(config.learning_rate), config.target_steps

    def stage(name, method, domains, steps=steps, fresh=()):
        return Stage(
            name,
            model,
            method,
            domains=domains,
            batch_size=config.batch_size,
            num_steps=steps,
            fresh=fresh,
        )

    def on_target(name, method, domains):
        return stage(name, method, domains, fresh=("heads/target/.*",))

    full = transfer.full(adam)
    partial = transfer.partial(adam, freeze=("backbone/conv_.*",))
    shared, task = labelled(mnist.train, "source"), labelled(few, "target")
    pretrain = stage("pretrain", full, [shared], steps=config.source_steps)
    joint = {
        f"joint_{value:g}": [shared, labelled(few, "target", weight=value)]
        for value in config.lambdas
    }
    ceiling = stage("all_labels", full, [labelled(usps.train, "target")], steps=config.source_steps)
    arms = {
        "scratch": [stage("scratch", full, [task])],
        "full": [pretrain, on_target("full", full, [task])],
        "partial": [pretrain, on_target("partial", partial, [task])],
        **{name: [pretrain, on_target(name, full, domains)] for name, domains in joint.items()},
        "all_labels": [ceiling],
    }
    evals = {
        "target": classification(usps.test, "target"),
        "source": classification(mnist.test, "source"),
    }
    return Experiment(
        arms=arms, baseline="scratch", evals=evals, primary=maximize("target", "accuracy")
    )
