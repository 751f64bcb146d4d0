"""Photographs: five CIFAR-10 classes to the other five with twenty labels each.

    pip install 'jaxtl[prepare]'
    python launch.py --prepare=cifar10
    python launch.py --experiment=cifar

The source is cropped and flipped at random, the target is cropped at its centre.

Measured on 10,000 of its training images and 1,000 of its test images:

    python launch.py --experiment=cifar --config.dataset=cifar10_part

Result: target/accuracy: scratch 0.547 [0.540, 0.555], full 0.642 [0.625, 0.660],
partial 0.656 [0.645, 0.667], probe 0.657 [0.635, 0.679]; 5 seeds, 362 s on 2 CPU cores.
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
    dataset: str = "cifar10"
    labels_per_class: int = 20
    crop: int = 24
    batch_size: int = 64
    source_steps: int = 1_500
    target_steps: int = 300
    learning_rate: float = 1e-3


def build(config: Config) -> Experiment:
    size = (config.crop, config.crop)
    cifar = data.tfds(config.dataset)
    source, target = cifar.classes(range(5)), cifar.classes(range(5, 10)).center_crop(size)
    few = target.train.few(config.labels_per_class)
    vary = data.chain(data.random_crop(size=size), data.random_flip())
    model = models.cifar_conv_net({"source": classes(5), "target": classes(5)})
    adam = optax.adam(config.learning_rate)
    pretrain = Stage(
        "pretrain",
        model,
        transfer.full(adam),
        domains=[labelled(source.train, "source", augment=vary)],
        batch_size=config.batch_size,
        num_steps=config.source_steps,
    )

    def fine_tune(name, method):
        return Stage(
            name,
            model,
            method,
            domains=[labelled(few, "target")],
            batch_size=config.batch_size,
            num_steps=config.target_steps,
            fresh=("heads/target/.*",),
        )

    partial = transfer.partial(adam, freeze=("backbone/conv_.*",))
    arms = {
        "scratch": [fine_tune("scratch", transfer.full(adam))],
        "full": [pretrain, fine_tune("full", transfer.full(adam))],
        "partial": [pretrain, fine_tune("partial", partial)],
        "probe": [pretrain, fine_tune("probe", transfer.probe(adam))],
    }
    evals = {
        "target": classification(target.test, "target"),
        "source": classification(source.center_crop(size).test, "source"),
    }
    return Experiment(
        arms=arms, baseline="scratch", evals=evals, primary=maximize("target", "accuracy")
    )
