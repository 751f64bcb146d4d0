"""Digits to turned digits after the source is gone: does SHOT find the classes again?

    python launch.py --experiment=source_free

Half of the training digits are the source, the others the target, whose labels only `supervised`
sees, with the source. Rates and weights are those of the paper for digits.

Result: target/accuracy: source_only 0.703 [0.656, 0.749], shot_im 0.936 [0.920, 0.952], shot 0.936
[0.922, 0.951], supervised 0.979 [0.977, 0.981]; 5 seeds.
"""

import dataclasses

import optax

from jaxtl import data, models
from jaxtl.methods import adapt, transfer
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize, unlabelled


@dataclasses.dataclass(frozen=True)
class Config:
    degrees: float = 20.0
    batch_size: int = 64
    source_steps: int = 300
    target_steps: int = 330  # 30 epochs


def build(config: Config) -> Experiment:
    digits = data.digits()
    shifted = data.rotated(digits, config.degrees)
    source, target = digits.train.split(0.5)[0], shifted.train.split(0.5)[1]
    model = models.conv_net({"digit": classes(10, label_smoothing=0.1)}, batch_norm=True)
    sgd = optax.sgd(0.01, momentum=0.9, nesterov=True)
    batch, steps = config.batch_size, config.target_steps
    on_source, on_target = [labelled(source, "digit")], [unlabelled(target, "digit")]
    first = Stage(
        "source",
        model,
        transfer.full(sgd),
        domains=on_source,
        batch_size=batch,
        num_steps=config.source_steps,
    )

    def arm(name, method, domains=on_target):
        return [
            first,
            Stage(name, model, method, domains=domains, batch_size=batch, num_steps=steps),
        ]

    with_labels = [*on_source, labelled(target, "digit")]
    return Experiment(
        arms={
            "source_only": [first],
            "shot_im": arm("shot_im", adapt.shot_im(sgd)),
            "shot": arm("shot", adapt.shot(sgd, weight=0.1, every=11)),
            "supervised": arm("supervised", transfer.full(sgd), with_labels),
        },
        baseline="source_only",
        evals={
            "target": classification(shifted.test, "digit"),
            "source": classification(digits.test, "digit"),
        },
        primary=maximize("target", "accuracy"),
    )
