"""One model for five shifted domains of digits: what do the weights lambda_di do for the worst?

    python launch.py --experiment=many_domains

`noisy_double` doubles lambda_d of the noisy domain, `balanced` has lambda_di = n / (10 n_class).

Result: worst/accuracy: plain_only 0.040 [0.006, 0.074], uniform 0.782 [0.754, 0.809], noisy_double
0.797 [0.773, 0.822], balanced 0.799 [0.776, 0.822]; 5 seeds, 63 s on 2 CPU cores.
"""

import dataclasses
import functools

import optax

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import Derived, classification
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize


@dataclasses.dataclass(frozen=True)
class Config:
    labels: int = 200
    batch_size: int = 32
    steps: int = 400


SHIFTS = {
    "plain": lambda digits: digits,
    "rotated": functools.partial(data.rotated, degrees=45),
    "thick": data.thickened,
    "noisy": functools.partial(data.noisy, stddev=0.3),
    "inverted": data.inverted,
}


def build(config: Config) -> Experiment:
    digits, adam = data.digits(), transfer.full(optax.adam(1e-3))
    few, model = digits.train.take(config.labels), models.conv_net({"digit": classes(10)})

    def arm(name, lambdas, each=None):
        domain = functools.partial(labelled, head="digit", example_weights=each)
        domains = [domain(SHIFTS[d](few), weight=value) for d, value in lambdas.items()]
        return [
            Stage(
                name,
                model,
                adam,
                domains=domains,
                batch_size=config.batch_size,
                num_steps=config.steps,
            )
        ]

    equal, scores = dict.fromkeys(SHIFTS, 1.0), [f"{name}/accuracy" for name in SHIFTS]
    arms = {
        "plain_only": arm("plain_only", {"plain": 1.0}),
        "uniform": arm("uniform", equal),
        "noisy_double": arm("noisy_double", equal | {"noisy": 2.0}),
        "balanced": arm("balanced", equal, data.balanced()),
    }
    evals = {d: classification(shift(digits.test), "digit") for d, shift in SHIFTS.items()}
    derived = {
        "worst/accuracy": lambda metrics: min(metrics[name] for name in scores),
        "mean/accuracy": Derived(lambda m: sum(m[name] for name in scores) / len(scores), "max"),
    }
    return Experiment(
        arms=arms,
        baseline="uniform",
        evals=evals,
        primary=maximize("worst", "accuracy"),
        derived=derived,
    )
