"""Digits to noisy digits without the source: new statistics, sharper norms, or another head?

    python launch.py --experiment=test_time

`refreshed` has batch statistics of the target (AdaBN), `tent` goes on from there.

Result: target/accuracy: source_only 0.679 [0.618, 0.739], refreshed 0.748 [0.727, 0.769], tent
0.748 [0.727, 0.769], t3a 0.696 [0.636, 0.755], refreshed_t3a 0.738 [0.701, 0.775]; 5 seeds.
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
    noise: float = 0.4
    batch_size: int = 64
    source_steps: int = 500
    target_steps: int = 110  # 10 epochs


def build(config: Config) -> Experiment:
    digits = data.digits()
    noisy = data.noisy(digits, config.noise)
    source, target = digits.train.split(0.5)[0], noisy.train.split(0.5)[1]
    model = models.conv_net({"digit": classes(10)}, batch_norm=True)
    batch, adam = config.batch_size, optax.adam(1e-3)
    on_source, on_target = [labelled(source, "digit")], [unlabelled(target, "digit")]
    first = Stage(
        "source",
        model,
        transfer.full(adam),
        domains=on_source,
        batch_size=batch,
        num_steps=config.source_steps,
        trains=["source"],
    )
    statistics = transfer.refresh_statistics(1024)
    refresh = Stage(
        "refreshed", model, statistics, domains=on_target, batch_size=batch, num_steps=0
    )
    tent = Stage(
        "tent",
        model,
        adapt.tent(adam),
        domains=on_target,
        batch_size=batch,
        num_steps=config.target_steps,
    )

    def head(name):
        return Stage(name, model, adapt.t3a(), domains=on_target, batch_size=batch, num_steps=0)

    return Experiment(
        arms={
            "source_only": [first],
            "refreshed": [first, refresh],
            "tent": [first, refresh, tent],
            "t3a": [first, head("t3a")],
            "refreshed_t3a": [first, refresh, head("refreshed_t3a")],
        },
        baseline="source_only",
        evals={
            "target": classification(noisy.test, "digit"),
            "source": classification(digits.test, "digit"),
        },
        primary=maximize("target", "accuracy"),
    )
