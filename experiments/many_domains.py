"""One model for five shifted domains of digits: what do the weights lambda_di do for the worst?

    python launch.py --experiment=many_domains

Generalized learning: the sum over domains d and examples i of lambda_di L_di. `plain_only` sees the
digits as they are, `uniform` all domains alike, `hard_first` doubles the weight of the two hard
ones, `noisy_half` also halves the weight of every other noisy example.

Result: not measured
"""

import dataclasses

import numpy as np
import optax

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize


@dataclasses.dataclass(frozen=True)
class Config:
    labels_per_class: int = 20
    batch_size: int = 32
    steps: int = 400
    learning_rate: float = 1e-3


def build(config: Config) -> Experiment:
    shifts = {
        "plain": lambda digits: digits,
        "rotated": lambda digits: data.rotated(digits, 45),
        "thick": data.thickened,
        "noisy": lambda digits: data.noisy(digits, 0.3),
        "inverted": data.inverted,
    }
    digits = data.digits()
    few = {name: shift(digits.train.few(config.labels_per_class)) for name, shift in shifts.items()}
    model = models.conv_net({"digit": classes(10)})
    method = transfer.full(optax.adam(config.learning_rate))

    def arm(name, lambdas, **example_weights):
        domains = [
            labelled(few[d], "digit", weight=w, example_weights=example_weights.get(d))
            for d, w in lambdas.items()
        ]
        return [Stage(name, model, method, domains, config.batch_size, config.steps)]

    hard = {"plain": 1, "rotated": 2, "thick": 1, "noisy": 1, "inverted": 2}
    halved = {"noisy": lambda labels: np.where(np.arange(len(labels["label"])) % 2, 1.0, 0.5)}
    arms = {
        "plain_only": arm("plain_only", {"plain": 1.0}),
        "uniform": arm("uniform", dict.fromkeys(shifts, 1.0)),
        "hard_first": arm("hard_first", hard),
        "noisy_half": arm("noisy_half", hard, **halved),
    }
    evals = {name: classification(shift(digits.test), "digit") for name, shift in shifts.items()}
    scores = [f"{name}/accuracy" for name in shifts]
    derived = {
        "worst/accuracy": lambda metrics: min(metrics[name] for name in scores),
        "mean/accuracy": lambda metrics: float(np.mean([metrics[name] for name in scores])),
    }
    return Experiment(arms, "uniform", evals, maximize("worst/accuracy"), derived)
