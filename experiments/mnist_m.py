r"""MNIST to MNIST-M, digits on photographs, whose training images have no labels.

    pip install 'jaxtl[prepare]'
    python launch.py --prepare=mnist,mnist_m
    python launch.py --experiment=mnist_m --seeds=3

All arms but `plain` see channels inverted, stretched and shifted at random (French et al., 2018).

Measured with 8,000 training images made by the recipe, on the original test images:

    python launch.py --experiment=mnist_m --seeds=3 \
        --config.train_set=mnist_m_remade --config.test_set=mnist_m_part

Result: target/accuracy: plain 0.215, source_only 0.746 [0.661, 0.832], dan 0.769, dann 0.784
[0.752, 0.815], cdan_e 0.774, mcc 0.611 (negative), self_training 0.759, fix_match 0.824 [0.808,
0.841] (positive), shot 0.782, target_only, the ceiling, 0.856; 3 seeds, 18 min on 2 busy cores.
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
    train_set: str = "mnist_m"
    test_set: str = "mnist_m"
    size: int = 16
    source_steps: int = 500
    steps: int = 600


def build(config: Config) -> Experiment:
    size, varied = (config.size, config.size), data.random_intensity()
    source = data.tfds("mnist").pad(2).rgb().resize(size)
    target = data.tfds(config.train_set).resize(size).train
    test = data.tfds(config.test_set).resize(size).test
    source_train, held_out = source.train.split(0.95)
    plain = labelled(source_train, "d")
    on_source = labelled(source_train, "d", augment=varied)
    on_target = unlabelled(target, "d", augment=varied)
    model = models.conv_net({"d": models.classes(10)}, batch_norm=True)
    tx, steps = optax.adam(1e-3), config.steps

    def stage(name, method, domains, steps=steps):
        return Stage(name, model, method, domains=domains, batch_size=64, num_steps=steps)

    start = [stage("source", transfer.full(tx), [on_source], steps=config.source_steps)]
    arms = {"plain": [stage("plain", transfer.full(tx), [plain])]}
    arms["source_only"] = [*start, stage("source_only", transfer.full(tx), [on_source])]
    slow = adapt.slow_optimizers(steps)
    table = adapt.catalogue(tx, num_steps=steps, tx_by_method=slow, strong=varied)
    for name in ("dan", "dann", "cdan_e", "mcc", "self_training", "fix_match"):
        arms[name] = [*start, stage(name, table[name], [on_source, on_target])]
    sgd = optax.sgd(1e-2, momentum=0.9, nesterov=True)  # of SHOT's paper
    shot = adapt.shot(sgd, weight=0.1)
    arms["shot"] = [*start, stage("shot", shot, [unlabelled(target, "d")])]
    ceiling = [labelled(target, "d", augment=varied)]
    arms["target_only"] = [stage("target_only", transfer.full(tx), ceiling)]
    evals = {"target": classification(test, "d"), "source": classification(source.test, "d")}
    return Experiment(
        arms=arms,
        baseline="source_only",
        evals=evals,
        primary=maximize("target", "accuracy"),
        select_every=300,
        criteria=criteria(held_out, target.take(1000), "d"),
    )
