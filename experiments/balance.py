"""Three tasks, losses a hundredfold apart: does a learned balance beat weights that are tuned?

    python launch.py --experiment=balance

Result: not measured.
"""

import dataclasses

import numpy as np
import optax

from jaxtl import data, models
from jaxtl.measure import analyses
from jaxtl.methods import multitask, transfer
from jaxtl.metrics import Derived, classification, regression
from jaxtl.plan import Experiment, Stage, labelled, maximize

MEASURED = ("digit/accuracy", "odd/accuracy", "slant/r2")


@dataclasses.dataclass(frozen=True)
class Config:
    examples: int = 400
    width: int = 32
    steps: int = 600
    weight_odd: float = 1.0
    weight_slant: float = 0.01


def slant(table: data.Table) -> np.ndarray:
    """Degrees by which the ink leans: atan(covariance of column and row / variance of row)."""
    ink = table.inputs[..., 0] / table.inputs.sum((1, 2, 3))[:, None, None]  # [n, row, column]
    place = np.arange(ink.shape[1])
    row, column = (place - (ink.sum(axis) @ place)[:, None] for axis in (2, 1))
    shared = np.einsum("nrc,nr,nc->n", ink, row, column)
    return np.degrees(np.arctan2(shared, np.einsum("nr,nr->n", ink.sum(2), row**2)))


def build(config: Config) -> Experiment:
    digits = data.digits()
    digits = digits.relabel("odd", lambda table: table.labels["label"] % 2, ["even", "odd"])
    digits = digits.relabel("slant", slant)
    pool, validation = digits.train.split(0.7)
    tasks = {"digit": "label", "odd": "odd", "slant": "slant"}
    heads = {"digit": models.classes(10), "odd": models.classes(2), "slant": models.regression()}
    shared = models.mlp(heads, hidden=(config.width, config.width))
    apart = models.cross_stitch(shared, "dense_0", own=1.0)  # a network for each task
    adam, rate = optax.adam(3e-3), optax.adam(0.025)
    rules = {
        "tuned": multitask.scalarization((1.0, config.weight_odd, config.weight_slant)),
        "equal": multitask.equal_weights(),
        "uncertainty": multitask.uncertainty_weighting(rate),
        "dwa": multitask.dwa(),
        "gls": multitask.gls(),
        "rlw": multitask.rlw(),
        "imtl_l": multitask.imtl_l(rate),
        "famo": multitask.famo(),
        "stch": multitask.stch(),
        "gradnorm": multitask.gradnorm(rate),
        "imtl_g": multitask.imtl_g(),
        "imtl": multitask.imtl(rate),
        "db_mtl": multitask.db_mtl(),
        "excess_mtl": multitask.excess_mtl(),
        "pcgrad": multitask.pcgrad(),
    }
    methods = {name: multitask.joint(adam, rule) for name, rule in rules.items()}

    def arm(name, model, method):
        few = [labelled(pool.take(config.examples), tasks)]
        return [Stage(name, model, method, domains=few, batch_size=64, num_steps=config.steps)]

    def mean(prefix):
        keys = [f"{prefix}{name}" for name in MEASURED]
        return Derived(lambda metrics: sum(metrics[key] for key in keys) / len(keys), "max")

    evals = {}
    for prefix, rows in (("", digits.test), ("validation_", validation)):
        for head, column in tasks.items():
            metric = regression if head == "slant" else classification
            evals[prefix + head] = metric(rows, head, column=column)
    separate = transfer.partial(adam, freeze=("backbone/.*/units",))
    alone = arm("alone", apart, dataclasses.replace(separate, fresh_frozen=True))
    return Experiment(
        arms={"alone": alone} | {name: arm(name, shared, m) for name, m in methods.items()},
        baseline="tuned",
        evals=evals,
        primary=maximize("tasks", "mean"),
        derived={"tasks/mean": mean(""), "validation/mean": mean("validation_")},
        select=maximize("validation", "mean"),
        select_every=config.steps,
        analyses=[*analyses.default(), analyses.relative_gain(dict.fromkeys(MEASURED, "alone"))],
    )
