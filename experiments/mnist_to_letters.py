"""Handwritten digits to letters with five labels a class, by a network of one hidden layer.

    pip install 'jaxtl[prepare]'
    python launch.py --prepare=mnist,notmnist
    python launch.py --experiment=mnist_to_letters

Letters of many fonts; handwritten ones with --config.dataset=emnist/letters.

Measured on 1,000 images a letter of notMNIST:

    python launch.py --experiment=mnist_to_letters --config.dataset=notmnist_part

Result: letters/accuracy: scratch 0.708 [0.660, 0.756], full 0.714 [0.669, 0.758], probe 0.649
[0.617, 0.681], ridge 0.662 [0.624, 0.701]; 5 seeds, 43 s on 2 CPU cores.
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
    dataset: str = "notmnist"
    labels_per_class: int = 5
    batch_size: int = 64
    source_steps: int = 2_000
    target_steps: int = 300
    learning_rate: float = 1e-3


def build(config: Config) -> Experiment:
    emnist = config.dataset == "emnist/letters"  # whose class 0 is empty
    letters = range(1, 27) if emnist else range(10)
    source = data.tfds("mnist")
    target = data.tfds(config.dataset, holdout=0.2).classes(letters)  # of one split
    few = target.train.few(config.labels_per_class)
    model = models.mlp({"digit": classes(10), "letter": classes(len(letters))}, hidden=(256,))
    adam = optax.adam(config.learning_rate)
    pretrain = Stage(
        "pretrain",
        model,
        transfer.full(adam),
        domains=[labelled(source.train, "digit")],
        batch_size=config.batch_size,
        num_steps=config.source_steps,
    )

    def fine_tune(name, method, steps=config.target_steps):
        return Stage(
            name,
            model,
            method,
            domains=[labelled(few, "letter")],
            batch_size=config.batch_size,
            num_steps=steps,
            fresh=("heads/letter/.*",),
        )

    arms = {
        "scratch": [fine_tune("scratch", transfer.full(adam))],
        "full": [pretrain, fine_tune("full", transfer.full(adam))],
        "probe": [pretrain, fine_tune("probe", transfer.probe(adam))],
        "ridge": [pretrain, fine_tune("ridge", transfer.ridge(), steps=0)],
    }
    evals = {
        "letters": classification(target.test, "letter"),
        "digits": classification(source.test, "digit"),
    }
    return Experiment(
        arms=arms, baseline="scratch", evals=evals, primary=maximize("letters", "accuracy")
    )
