"""Five kinds of flowers, 20 labels each: which regularised fine-tuning of an ImageNet model pays?

    pip install 'jaxtl[prepare,pretrained]'
    python launch.py --prepare=tf_flowers
    python launch.py --experiment=flowers --seeds=3

Measured on other photographs of the same kinds of flowers, at 32 x 32 pixels:

    python launch.py --experiment=flowers --seeds=3 --config.dataset=flowers32

Result: target/accuracy: scratch 0.225, probe 0.544 [0.503, 0.584], full 0.395 [0.324, 0.467], mixup
0.405, sam 0.411, stoch_norm 0.455, co_tuning 0.345, bi_tuning 0.382; 3 seeds, 37 min busy.
"""

import dataclasses

import optax

from jaxtl import data, models, pretrained
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.plan import Experiment, Stage, labelled, maximize


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "tf_flowers"
    labels_per_class: int = 20
    steps: int = 40
    learning_rate: float = 3e-4
    weights: str = pretrained.EFFICIENTNET_LITE0


def build(config: Config) -> Experiment:
    flowers = data.tfds(config.dataset, size=(64, 64), holdout=0.2)  # of one split
    few = [labelled(flowers.train.few(config.labels_per_class), "target")]
    heads = {"imagenet": models.classes(1000), "target": models.classes(5)}
    model = models.efficientnet_lite("lite0", heads)
    names = pretrained.efficientnet_lite("lite0")
    weights = pretrained.weights(config.weights, names, head="imagenet")
    smoothed = models.classes(5, label_smoothing=0.1)
    smooth = dataclasses.replace(model, heads={**heads, "target": smoothed})
    adam = optax.adam(config.learning_rate)
    full = transfer.full(adam)

    def tune(name, method, model=model, steps=config.steps):
        return [
            Stage(
                name,
                model,
                method,
                domains=few,
                batch_size=25,
                num_steps=steps,
                fresh=("heads/target/.*",),
                weights=weights,
            )
        ]

    arms = {
        "scratch": [
            Stage("scratch", model, full, domains=few, batch_size=25, num_steps=config.steps)
        ],
        "probe": tune("probe", transfer.probe(optax.adam(1e-2)), steps=200),
        "full": tune("full", full),
        "layerwise": tune("layerwise", transfer.full(transfer.layerwise(model, adam, 0.75))),
        "smoothing": tune("smoothing", full, smooth),
        "mixup": tune("mixup", transfer.mixup(adam)),
        "sam": tune("sam", transfer.sam(full)),
        "stoch_norm": tune("stoch_norm", full, models.stoch_norm(model)),
        "delta": tune("delta", transfer.delta(adam, blocks={"stage_7": 320})),
        "co_tuning": tune(
            "co_tuning", transfer.co_tuning(adam, source="imagenet", target="target")
        ),
        "bi_tuning": tune("bi_tuning", transfer.bi_tuning(adam, head="target")),
    }
    evals = {"target": classification(flowers.test, "target")}
    return Experiment(
        arms=arms, baseline="full", evals=evals, primary=maximize("target", "accuracy")
    )
