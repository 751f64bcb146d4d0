"""MNIST to USPS and back without a label of the target: what does each method give?

    python launch.py --experiment=mnist_usps --arms=all --seeds=3

Result: target/accuracy, last step, 29 arms in 53 min on 2 busy cores: source_only 0.866 [0.722,
1.010], shot 0.962 [0.953, 0.971], dirt_t 0.948, mcc 0.943, ..., fix_match 0.115 (negative), ceiling
0.957. 5 seeds of --config.steps=1500 --config.decay=True: source_only 0.880, dirt_t 0.966 [0.963,
0.969], mcc 0.965, shot 0.957, ceiling 0.974; back 0.967, shot 0.981, mcc 0.979, ceiling 0.987.
"""

import dataclasses

import optax

from jaxtl import data, models
from jaxtl.methods import adapt, transfer
from jaxtl.metrics import classification
from jaxtl.plan import Experiment, Stage, labelled, maximize, unlabelled
from jaxtl.transferability import criteria


@dataclasses.dataclass(frozen=True)
class Config:
    source: str = "mnist"
    target: str = "usps"
    steps: int = 500
    decay: bool = False


def build(config: Config) -> Experiment:
    source, target = (data.tfds(name).resize((16, 16)) for name in (config.source, config.target))
    affine = data.random_affine(scale=(0.7, 1.4), degrees=10, shear=0.2, translate=0.1)
    train, held_out = source.train.split(0.95)
    old, new = labelled(train, "d", augment=affine), unlabelled(target.train, "d", augment=affine)
    known, clean = labelled(target.train, "d", augment=affine), unlabelled(target.train, "d")
    model = models.conv_net({"d": models.classes(10)}, batch_norm=True)

    def stage(name, method, *domains, steps=config.steps, trains=()):
        return Stage(name, model, method, domains, 64, steps, trains=trains)

    peaks = (1e-3, 1e-2)
    rates = [optax.cosine_decay_schedule(p, config.steps) if config.decay else p for p in peaks]
    tx, shot_tx = optax.adam(rates[0]), optax.sgd(rates[1], momentum=0.9, nesterov=True)
    own = {"tx_by_method": adapt.slow_optimizers(config.steps), "strong": affine, "radius": 0.5}
    methods = adapt.catalogue(tx, num_steps=config.steps, **own)
    methods["adda"] = adapt.adda(optax.adam(1e-4))
    shot = adapt.shot(shot_tx, weight=0.1)  # the paper's weight for digits
    alone = {"shot_im": adapt.shot_im(shot_tx), "shot": shot, "tent": adapt.tent(tx)}
    start = [stage("source", transfer.full(tx), old, trains=["source"])]
    arms = {"source_only": [*start, stage("source_only", transfer.full(tx), old)]}
    for name, method in (methods | alone).items():
        aim = clean if name in ("mean_teacher", "fix_match", "shot") else new  # own views, or none
        arms[name] = [*start, stage(name, method, *[old] * (name in methods), aim)]
    arms["adabn"] = [*start, stage("adabn", transfer.refresh_statistics(), new, steps=0)]
    arms["dirt_t"] = [*arms["vada"], stage("dirt_t", adapt.dirt_t(tx, radius=0.5), new)]
    arms["target_only"] = [stage("target_only", transfer.full(tx), known)]
    evals = {"target": classification(target.test, "d"), "source": classification(source.test, "d")}
    judges = criteria(held_out, target.train.take(1000), "d")
    primary = maximize("target", "accuracy")
    return Experiment(arms, "source_only", evals, primary, select_every=200, criteria=judges)
