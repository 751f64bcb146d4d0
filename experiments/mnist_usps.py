"""MNIST to USPS and back without a label of the target: what does each method give?

    pip install 'jaxtl[prepare]'
    python launch.py --prepare=mnist,usps
    python launch.py --experiment=mnist_usps --seeds=3

Result: target/accuracy, last step, 29 arms in 53 min on 2 busy cores, 3 seeds: source_only 0.866
[0.722, 1.010], shot 0.962 [0.953, 0.971], dirt_t 0.948, mcc 0.943, ..., fix_match 0.115 (negative),
ceiling 0.957. 5 seeds of --config.steps=1500 --config.decay=true: source_only 0.880, dirt_t 0.966
[0.963, 0.969], mcc 0.965, shot 0.957, ceiling 0.974; the same with --config.source=usps
--config.target=mnist: 0.967, shot 0.981, mcc 0.979, ceiling 0.987.
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
    source_train, held_out = source.train.split(0.95)
    on_source = labelled(source_train, "d", augment=affine)
    on_target = unlabelled(target.train, "d", augment=affine)
    model = models.conv_net({"d": models.classes(10)}, batch_norm=True)

    def stage(name, method, domains, steps=config.steps, trains=()):
        return Stage(
            name, model, method, domains=domains, batch_size=64, num_steps=steps, trains=trains
        )

    def rate(peak):
        return optax.cosine_decay_schedule(peak, config.steps) if config.decay else peak

    tx, shot_tx = optax.adam(rate(1e-3)), optax.sgd(rate(1e-2), momentum=0.9, nesterov=True)
    start = [stage("source", transfer.full(tx), [on_source], trains=["source"])]
    arms = {"source_only": [*start, stage("source_only", transfer.full(tx), [on_source])]}
    both = adapt.catalogue(
        tx,
        num_steps=config.steps,
        tx_by_method=adapt.slow_optimizers(config.steps),
        strong=affine,
        radius=0.5,
    )
    both["adda"] = adapt.adda(optax.adam(1e-4))
    alone = {
        "shot_im": adapt.shot_im(shot_tx),
        "shot": adapt.shot(shot_tx, weight=0.1),  # the paper's weight for digits
        "tent": adapt.tent(tx),
    }
    plain = unlabelled(target.train, "d")  # for methods that make views of their own, or none
    for name, method in (both | alone).items():
        unseen = plain if name in ("mean_teacher", "fix_match", "shot") else on_target
        domains = [on_source, unseen] if name in both else [unseen]
        arms[name] = [*start, stage(name, method, domains)]
    arms["adabn"] = [*start, stage("adabn", transfer.refresh_statistics(), [on_target], steps=0)]
    arms["dirt_t"] = [*arms["vada"], stage("dirt_t", adapt.dirt_t(tx, radius=0.5), [on_target])]
    ceiling = labelled(target.train, "d", augment=affine)
    arms["target_only"] = [stage("target_only", transfer.full(tx), [ceiling])]
    evals = {"target": classification(target.test, "d"), "source": classification(source.test, "d")}
    return Experiment(
        arms=arms,
        baseline="source_only",
        evals=evals,
        primary=maximize("target", "accuracy"),
        select_every=200,
        criteria=criteria(held_out, target.train.take(1000), "d"),
    )
