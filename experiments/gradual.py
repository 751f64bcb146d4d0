"""Thaw layer by layer, or fit the head first: are slower ways of fine-tuning better?

    python launch.py --experiment=gradual

All arms take the same number of steps on ten labels a class of the digits 5-9, the source is 0-4.

Result: target/accuracy: full 0.891 [0.866, 0.915], slow_backbone 0.838 [0.785, 0.891], lp_ft 0.904
[0.866, 0.941], gradual 0.894 [0.843, 0.945]; 5 seeds, 61 s on 2 CPU cores.
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
    labels_per_class: int = 10
    batch_size: int = 64
    source_steps: int = 1_000
    target_steps: int = 300
    learning_rate: float = 1e-3


def build(config: Config) -> Experiment:
    digits = data.digits()
    source, target = digits.classes(range(5)), digits.classes(range(5, 10))
    few = target.train.few(config.labels_per_class)
    model = models.conv_net({"source": classes(5), "target": classes(5)})
    adam, steps = optax.adam(config.learning_rate), config.target_steps
    full = transfer.full(adam)
    pretrain = Stage(
        "pretrain",
        model,
        full,
        domains=[labelled(source.train, "source")],
        batch_size=config.batch_size,
        num_steps=config.source_steps,
    )

    def fine_tune(name, method=full, steps=steps):
        return Stage(
            name,
            model,
            method,
            domains=[labelled(few, "target")],
            batch_size=config.batch_size,
            num_steps=steps,
            fresh=("heads/target/.*",),
        )

    unfrozen_in_order = [["heads/target/.*"], ["backbone/dense_0/.*"], ["backbone/conv_.*"]]
    slow = {
        "heads": (("heads/.*",), adam),
        "backbone": (("backbone/.*",), optax.adam(config.learning_rate / 10)),
    }
    half = fine_tune("lp_ft", steps=steps // 2)
    arms = {
        "full": [pretrain, fine_tune("full")],
        "slow_backbone": [pretrain, fine_tune("slow_backbone", transfer.grouped(slow))],
        "lp_ft": [pretrain, *transfer.linear_probe_then_fine_tune(half, adam, steps - steps // 2)],
        "gradual": [
            pretrain,
            *transfer.gradual_unfreezing(fine_tune("gradual"), adam, unfrozen_in_order),
        ],
    }
    evals = {
        "target": classification(target.test, "target"),
        "source": classification(source.test, "source"),
    }
    return Experiment(
        arms=arms, baseline="full", evals=evals, primary=maximize("target", "accuracy")
    )
