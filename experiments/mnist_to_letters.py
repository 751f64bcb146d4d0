"""Handwritten digits to letters with five labels a class, by a network of one hidden layer.

    python launch.py --experiment=mnist_to_letters --config.dataset=notmnist_part

Result: notmnist_part, letters/accuracy: scratch 0.708 [0.660, 0.756], full 0.714 [0.669, 0.758],
probe 0.649 [0.617, 0.681], ridge 0.662 [0.624, 0.701]; 5 seeds, 43 s on 2 CPU cores.
"""

import dataclasses

import optax

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize

SPLITS = {  # dataset: (train split, test split, classes; class 0 of emnist/letters is empty)
    "emnist/letters": ("train", "test", range(1, 27)),
    "notmnist_part": ("test[:80%]", "test[80%:]", range(10)),
}


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "emnist/letters"
    labels_per_class: int = 5
    batch_size: int = 64
    source_steps: int = 2_000
    target_steps: int = 300
    learning_rate: float = 1e-3


def build(config: Config) -> Experiment:
    train, test, letters = SPLITS.get(config.dataset, ("train", "test", range(10)))
    source = data.tfds("mnist")
    few = data.tfds(config.dataset, split=train).classes(letters).few(config.labels_per_class)
    target_test = data.tfds(config.dataset, split=test).classes(letters)
    model = models.mlp({"digit": classes(10), "letter": classes(len(letters))}, hidden=(256,))
    adam, batch = optax.adam(config.learning_rate), config.batch_size
    on_source = [labelled(source.train, "digit")]
    pretrain = Stage("pretrain", model, transfer.full(adam), on_source, batch, config.source_steps)

    def adapt(name, method, steps=config.target_steps):
        fresh = ("heads/letter/.*",)
        return Stage(name, model, method, [labelled(few, "letter")], batch, steps, fresh)

    arms = {
        "scratch": [adapt("scratch", transfer.full(adam))],
        "full": [pretrain, adapt("full", transfer.full(adam))],
        "probe": [pretrain, adapt("probe", transfer.probe(adam))],
        "ridge": [pretrain, adapt("ridge", transfer.ridge(), steps=0)],
    }
    evals = {
        "letters": classification(target_test, "letter"),
        "digits": classification(source.test, "digit"),
    }
    return Experiment(arms, "scratch", evals, maximize("letters", "accuracy"))
