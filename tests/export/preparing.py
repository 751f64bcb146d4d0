"""An experiment file whose two domains are standardized apart, and its data."""

import numpy as np

EXPERIMENT = '''\
"""Two clinics, each standardized by itself.

    python launch.py --experiment=preparing
"""

import dataclasses
from pathlib import Path

import numpy as np

from jaxtl import data, models
from jaxtl.data import Dataset, Table
from jaxtl.data.table import Call
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.plan import Experiment, Method, Stage, labelled, maximize, unlabelled


@dataclasses.dataclass(frozen=True)
class Config:
    parts: int = 2


def read(file, part):
    rows = np.load(file)
    return Table(rows[part], {"label": rows["label"]}, {"label": ("no", "yes")})


def clinic(name):
    return Dataset(name, Call(read, (str(Path("rows.npz").absolute()), name)))


def add_ratio(table, parts):
    ratio = table.inputs[:, :1] / table.inputs[:, 1:parts]
    return dataclasses.replace(table, inputs=np.concatenate([table.inputs, ratio], 1))


def build(config):
    near, far = (clinic(name).map(add_ratio, config.parts) for name in ("near", "far"))
    train, near_test = near.standardize().slice(0, 8), near.standardize().slice(8, 12)
    target = far.standardize()
    model = models.linear({"ill": classes(2)})
    untrained = Method(fresh_frozen=True)
    domains = [labelled(train, "ill"), unlabelled(target, "ill")]
    return Experiment(
        arms={
            "random": [
                Stage("random", model, untrained, domains=domains, batch_size=4, num_steps=0)
            ]
        },
        baseline="random",
        evals={
            "near": classification(near_test, "ill"),
            "far": classification(target, "ill"),
        },
        primary=maximize("far", "accuracy"),
    )
'''


def _rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    near = rng.normal([100, 20, 3], [20, 2, 0.1], (12, 3)).astype(np.float32)
    far = near * np.float32(3) + np.float32(1000)
    return {"near": near, "far": far, "label": np.arange(12, dtype=np.int32) % 2}


ROWS = _rows()
