"""A source and a target task of a few dozen examples, and a small model with batch statistics."""

import flax.linen as nn
import numpy as np
import optax

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize


class Body(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(8, name="dense")(x)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = nn.Dropout(0.2, deterministic=not train)(nn.relu(x))
        return nn.relu(nn.Dense(8, name="last")(x))


def blobs(name: str, n: int = 40, shift: float = 0.0, ways: int = 3, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % ways
    centres = np.random.default_rng(7).normal(size=(ways, 5)) * 2
    inputs = centres[labels] + rng.normal(size=(n, 5)) + shift
    return data.arrays(inputs.astype(np.float32), labels, name=name)


def body():
    return models.from_linen(Body(), {"source": classes(3), "target": classes(3)}, name="body")


def stages(adapt_method=None, steps=6, tx=None):
    model, tx = body(), tx or optax.adam(1e-2)
    pretrain = Stage(
        "pretrain", model, transfer.full(tx), [labelled(blobs("source"), "source")], 8, steps
    )
    adapt = Stage(
        "adapt",
        model,
        adapt_method or transfer.full(tx),
        [labelled(blobs("target", 24, 1.0, seed=1), "target")],
        8,
        steps,
        fresh=("heads/target/.*",),
    )
    return pretrain, adapt


def experiment(adapt_method=None, steps=6) -> Experiment:
    pretrain, adapt = stages(adapt_method, steps)
    scratch = Stage("scratch", adapt.model, transfer.full(optax.adam(1e-2)), adapt.domains, 8, steps)
    return Experiment(
        arms={"scratch": [scratch], "full": [pretrain, adapt]},
        baseline="scratch",
        evals={
            "target": classification(blobs("target_test", 30, 1.0, seed=2), "target"),
            "source": classification(blobs("source_test", 30, seed=3), "source"),
        },
        primary=maximize("target/accuracy"),
    )
