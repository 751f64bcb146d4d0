"""MNIST to USPS and back without a label of the target: what does each method give?

    python launch.py --experiment=mnist_usps --arms=all --seeds=3

Result: target/accuracy, last step, 3 seeds, 29 arms in 53 min on 2 busy cores: source_only 0.866
[0.722, 1.010]; dirt_t 0.948 [0.932, 0.964], mcc 0.943, shot_im 0.935, shot 0.934, tent 0.930, mdd
0.926, vada 0.925, bnm 0.924, cdan_e 0.918, dann 0.904, dan 0.882, ..., adda 0.870, self_training
0.831, wdgrl 0.505, fix_match 0.420, afn and deep_jdot 0.13 (negative, collapsed); target_only, the
ceiling, 0.957. Back (usps to mnist): source_only 0.921, shot_im 0.968, mcc and mean_teacher 0.956,
fix_match 0.954, shot 0.948, deep_coral 0.946, cdan_e 0.945, ..., target_only 0.966.
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

    def stage(name, method, *domains, steps=config.steps):
        return Stage(name, model, method, domains, 64, steps)

    def rate(peak):
        return optax.cosine_decay_schedule(peak, config.steps) if config.decay else peak

    tx, shot_tx = optax.adam(rate(1e-3)), optax.sgd(rate(1e-2), momentum=0.9, nesterov=True)
    # The radius is the paper's share of the length of an input.
    methods = adapt.catalogue(tx, classes=10, num_steps=config.steps, strong=affine, radius=0.5)
    methods["adda"] = adapt.adda(optax.adam(1e-4))
    shot = adapt.shot(shot_tx, weight=0.1)  # the paper's weight for digits
    alone = {"shot_im": adapt.shot_im(shot_tx), "shot": shot, "tent": adapt.tent(tx)}
    start = [stage("source", transfer.full(tx), old)]
    arms = {"source_only": [*start, stage("source_only", transfer.full(tx), old)]}
    as_they_are = ("mean_teacher", "fix_match", "shot")  # target images that are not augmented
    for name, method in (methods | alone).items():
        seen = [old] * (name in methods) + [clean if name in as_they_are else new]
        arms[name] = [*start, stage(name, method, *seen)]
    arms["adabn"] = [*start, stage("adabn", transfer.refresh_statistics(), new, steps=0)]
    arms["dirt_t"] = [*arms["vada"], stage("dirt_t", adapt.dirt_t(tx, radius=0.5), new)]
    arms["target_only"] = [stage("target_only", transfer.full(tx), known)]
    evals = {"target": classification(target.test, "d"), "source": classification(source.test, "d")}
    judges = criteria(held_out, target.train.take(1000), "d")
    primary = maximize("target/accuracy")
    return Experiment(arms, "source_only", evals, primary, select_every=200, criteria=judges)
