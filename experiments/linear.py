"""Related linear tasks: how similar must the source be for transfer to pay?

    python launch.py --experiment=linear

`similarity` is the cosine of the two weight vectors. `parameter` is a ridge that shrinks to the
source's solution, `feature` one on the hidden layer of the source's network, `deep` fine-tunes it.

Result: target/mse: scratch 0.671 [0.412, 0.931], parameter 0.209 [0.164, 0.255], feature 0.531
[0.446, 0.616], deep 0.292 [0.207, 0.377]; 5 seeds, 16 s on 2 CPU cores.
"""

import dataclasses

import numpy as np
import optax

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import regression
from jaxtl.plan import Experiment, Stage, labelled, minimize

SWEEP = {"similarity": (-0.5, 0.0, 0.25, 0.5, 0.75, 0.9, 1.0)}


@dataclasses.dataclass(frozen=True)
class Config:
    similarity: float = 0.9
    dimensions: int = 30
    target_labels: int = 20
    noise: float = 0.5
    steps: int = 500


def task(weights: np.ndarray, noise: float, n: int, seed: int) -> data.Dataset:
    inputs = np.random.default_rng(seed).normal(size=(n, len(weights)))
    labels = inputs @ weights + noise * np.random.default_rng((seed, n)).normal(size=n)
    return data.arrays(inputs, labels.astype(np.float32), name=f"linear[{seed}]")


def build(config: Config) -> Experiment:
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(config.dimensions, 2)))[0].T
    source = task(basis[0], config.noise, 2000, seed=1)
    weights = config.similarity * basis[0] + np.sqrt(1 - config.similarity**2) * basis[1]
    target, test = task(weights, config.noise, 2000, seed=2), task(weights, 0.0, 2000, seed=3)
    few, heads = target.take(config.target_labels), {"y": models.regression()}
    linear, deep = models.linear(heads), models.mlp(heads, hidden=(32,))
    biased = transfer.ridge(towards_source=True)
    adam, ridge = transfer.full(optax.adam(1e-2)), transfer.ridge()

    def stage(name, model, method, dataset, steps=0):
        return Stage(
            name, model, method, domains=[labelled(dataset, "y")], batch_size=64, num_steps=steps
        )

    network = stage("network", deep, adam, dataset=source, steps=config.steps)
    arms = {
        "scratch": [stage("scratch", linear, ridge, dataset=few)],
        "parameter": [
            stage("source", linear, ridge, dataset=source),
            stage("biased", linear, biased, dataset=few),
        ],
        "feature": [network, stage("feature", deep, ridge, dataset=few)],
        "deep": [network, stage("deep", deep, adam, dataset=few, steps=config.steps // 5)],
    }
    return Experiment(
        arms=arms,
        baseline="scratch",
        evals={"target": regression(test, "y")},
        primary=minimize("target", "mse"),
    )
