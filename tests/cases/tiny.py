"""A source and a target task of a few dozen examples, and a small model with batch statistics."""

import dataclasses
import io

import flax.linen as nn
import jax
import numpy as np
import optax
from rich.console import Console

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize
from jaxtl.study.experiment import run_experiment
from jaxtl.study.progress import Reporter
from jaxtl.study.run import Run
from jaxtl.train.loop import train_stage
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve

OPTIONS = RunOptions(checkpoint_every=5, steps_per_dispatch=4)
IDENTITY = {"stage": "tiny", "config": {"learning_rate": 0.1}, "seeds": [0, 1]}


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Published weights of any model: every leaf holds the numbers 0, 1, 2, ... times a factor."""

    factor: float = 1 / 64
    lacks: str = ""
    name: str = "numbers.npz"

    def read(self, wanted):
        if self.lacks in wanted:
            raise ValueError(f"{self.name} lacks {self.lacks}")
        leaves = {
            path: (np.arange(leaf.size).reshape(leaf.shape) * self.factor).astype(leaf.dtype)
            for path, leaf in wanted.items()
        }
        return leaves, f"{len(wanted)} loaded\nnone unused"

    def digest(self):
        return str(self.factor)


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
        "pretrain",
        model,
        transfer.full(tx),
        domains=[labelled(blobs("source"), "source")],
        batch_size=8,
        num_steps=steps,
    )
    adapt = Stage(
        "adapt",
        model,
        adapt_method or transfer.full(tx),
        domains=[labelled(blobs("target", 24, 1.0, seed=1), "target")],
        batch_size=8,
        num_steps=steps,
        fresh=("heads/target/.*",),
    )
    return pretrain, adapt


def experiment(adapt_method=None, steps=6, analyses=()) -> Experiment:
    """Arms from scratch and by transfer; with `analyses=None` all that is usual is looked at."""
    pretrain, adapt = stages(adapt_method, steps)
    scratch = Stage(
        "scratch",
        adapt.model,
        transfer.full(optax.adam(1e-2)),
        domains=adapt.domains,
        batch_size=8,
        num_steps=steps,
    )
    return Experiment(
        arms={"scratch": [scratch], "full": [pretrain, adapt]},
        baseline="scratch",
        evals={
            "target": classification(blobs("target_test", 30, 1.0, seed=2), "target"),
            "source": classification(blobs("source_test", 30, seed=3), "source"),
        },
        primary=maximize("target", "accuracy"),
        analyses=analyses,
    )


def mlp_stage(steps=23, tx=None, **more):
    model = models.mlp({"source": classes(3)}, hidden=(8,))
    domains = [labelled(blobs("source"), "source")]
    return Stage(
        "mlp",
        model,
        transfer.full(tx or optax.adam(1e-2)),
        domains=domains,
        batch_size=8,
        num_steps=steps,
        **more,
    )


def train(stage, directory, *, seeds=(0, 1), source=None, options=OPTIONS, parent=None, **more):
    setup = resolve(stage, parent)
    return train_stage(over_seeds(setup, seeds), source, directory, IDENTITY, options, **more)


def assert_same(a, b, **tolerance):
    """Two trees, bit for bit unless a tolerance is given."""
    a, b = ({jax.tree_util.keystr(p): leaf for p, leaf in jax.tree.leaves_with_path(tree)}
            for tree in (a, b))  # fmt: skip
    assert a.keys() == b.keys()
    for path, leaf in a.items():
        if tolerance:
            np.testing.assert_allclose(leaf, b[path], err_msg=path, **tolerance)
        else:
            np.testing.assert_array_equal(leaf, b[path], err_msg=path)


def run_tiny(directory, arms=(), seeds=(0, 1), plan=None, digest="0", options=OPTIONS, **more):
    """(summary, what was printed) of the tiny experiment.

    Args:
        digest: of its file.
        more: fields of the run, or of its options.
    """
    output = io.StringIO()
    run = tiny_run(directory, arms, seeds, digest, options, **more)
    reporter = Reporter(Console(file=output, width=200))
    return run_experiment(plan or experiment(), run, reporter), output.getvalue()


def tiny_run(directory, arms=(), seeds=(0, 1), digest="0", options=OPTIONS, **more):
    names = {field.name for field in dataclasses.fields(RunOptions)} & more.keys()
    options = dataclasses.replace(options, **{name: str(more.pop(name)) for name in names})
    return Run("tiny", {}, digest, seeds, arms, directory, options, **more)
