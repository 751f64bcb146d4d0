"""Three tasks, losses a hundredfold apart: does a learned balance beat weights that are tuned?

    python launch.py --experiment=balance

The weights of `tuned` are those of 16 that validation data prefer, trained in one program by
`--arms=tuned --sweep=weight_odd=0.3,1.0,3.0,10.0 --sweep=weight_slant=0.01,0.03,0.1,0.3`. Rules
have the constants of their papers or those below, and are not tuned; `alone` is a network a task.

Result: no rule beats tuned weights: of 24, 13 are worse in tasks/mean and 11 undecided, of which
imtl is best (+0.005 [-0.001, 0.012]). Delta_p: imtl -0.003 [-0.011, 0.004], stch -0.005, tuned
-0.009 [-0.017, -0.000], equal_weights -0.037; 5 seeds, 17 min on 2 busy CPU cores.
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
    steps: int = 600
    weight_odd: float = 1.0
    weight_slant: float = 0.01


def slant(table: data.Table) -> np.ndarray:
    """Degrees by which the ink leans: atan(covariance of column and row / variance of row)."""
    ink = table.inputs[..., 0] / table.inputs.sum((1, 2, 3))[:, None, None]  # [n, row, column]
    place = np.arange(ink.shape[1])
    row, column = (place - (ink.sum(axis) @ place)[:, None] for axis in (2, 1))
    both = ((ink @ column[:, :, None])[..., 0] * row).sum(1)
    return np.degrees(np.arctan2(both, (ink.sum(2) * row**2).sum(1)))


def rules(config: Config) -> dict:
    mt, rate = multitask, optax.adam(0.025)
    learned = [mt.uncertainty_weighting, mt.imtl_l, mt.gradnorm, mt.imtl]
    others = [mt.equal_weights, mt.dwa, mt.gls, mt.rlw, mt.famo, mt.stch, mt.imtl_g, mt.db_mtl]
    others += [mt.excess_mtl, mt.pcgrad, mt.gradvac, mt.graddrop, mt.mgda, mt.cagrad, mt.upgrad]
    others += [mt.nash_mtl, mt.fairgrad, mt.aligned_mtl, mt.sdmgrad, mt.moco]
    tuned = multitask.scalarization((1.0, config.weight_odd, config.weight_slant))
    named = {rule.__name__: rule(rate) for rule in learned}
    return {"tuned": tuned} | named | {rule.__name__: rule() for rule in others}


def build(config: Config) -> Experiment:
    digits = data.digits().relabel("slant", slant)
    digits = digits.relabel("odd", lambda table: table.labels["label"] % 2, ["even", "odd"])
    pool, validation = digits.train.split(0.7)
    tasks = {"digit": "label", "odd": "odd", "slant": "slant"}
    few = labelled(pool.take(config.examples), tasks)
    heads = {"digit": models.classes(10), "odd": models.classes(2), "slant": models.regression()}
    shared, adam = models.mlp(heads, hidden=(32, 32)), optax.adam(3e-3)
    apart = models.cross_stitch(shared, "dense_0", own=1.0)  # a network for each task

    def arm(name, model, method):
        return [Stage(name, model, method, domains=[few], batch_size=64, num_steps=config.steps)]

    def mean(prefix):
        keys = [f"{prefix}{name}" for name in MEASURED]
        return Derived(lambda metrics: sum(metrics[key] for key in keys) / len(keys), "max")

    evals = {}
    for prefix, rows in (("", digits.test), ("validation_", validation)):
        for head, column in tasks.items():
            metric = regression if head == "slant" else classification
            evals[prefix + head] = metric(rows, head, column=column)
    alone = transfer.partial(adam, freeze=("backbone/.*/units",))
    alone = arm("alone", apart, dataclasses.replace(alone, fresh_frozen=True))
    together = {n: arm(n, shared, multitask.joint(adam, r)) for n, r in rules(config).items()}
    return Experiment(
        arms={"alone": alone} | together,
        baseline="tuned",
        evals=evals,
        primary=maximize("tasks", "mean"),
        derived={"tasks/mean": mean(""), "validation/mean": mean("validation_")},
        select=maximize("validation", "mean"),
        select_every=config.steps,
        analyses=[*analyses.default(), analyses.relative_gain(dict.fromkeys(MEASURED, "alone"))],
    )
