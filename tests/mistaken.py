"""An experiment file in which anything can be wrong, given to the command line in this process."""

import contextlib
import io
import sys
import textwrap

from jaxtl import cli

FILE = '''\
"""Does it matter?"""

import dataclasses
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl import data, losses, models
from jaxtl.methods import adapt, transfer
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.plan import Criterion, Domain, Evaluation, Experiment, Head, Method, Model, Module
from jaxtl.plan import Metric, Stage, Update, labelled, maximize, unlabelled


@dataclasses.dataclass(frozen=True)
class Config:
    rate: float = 0.1


def blobs(seed, name="blobs"):
    labels = np.arange(24) % 3
    inputs = np.eye(3)[labels] + np.random.default_rng(seed).normal(size=(24, 3)) / 4
    return data.arrays(inputs.astype(np.float32), labels, name=name)


def supervised_loss(model, params, state, batch, rng, step):
    output, state = models.apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
    loss, _ = losses.supervised(model.heads, output["logits"], batch)
    return loss, (state, {{}})


def mine(loss, **more):
    return Method({{"all": ((".*",), optax.sgd(0.1))}}, (Update(loss),), **more)


def own(**more):
    """An evaluation of one's own."""
    values = dict(
        dataset=blobs(1),
        head="y",
        column="label",
        sums=lambda outputs, labels, weights: {{"hits": weights.sum()}},
        results=lambda sums: {{"hits": sums["hits"]}},
    )
    return Evaluation(**{{**values, **more}})


{top}


def build(config):
    tx = optax.sgd(config.rate)
    heads, hidden = {{"y": classes(3)}}, (4,)
    method, domains, name = transfer.full(tx), [labelled(blobs(0), "y")], "pre"
    batch_size, num_steps, fresh = 8, 3, ()
    evals, primary = {{"test": classification(blobs(1), "y")}}, maximize("test", "accuracy")
    more = {{}}
{inside}
    model = models.mlp(heads, hidden)
    stage = Stage(
        name,
        model,
        method,
        domains=domains,
        batch_size=batch_size,
        num_steps=num_steps,
        fresh=fresh,
    )
    arms, baseline = {{"first": [stage], "again": [stage]}}, "first"
{below}
    return Experiment(arms, baseline, evals, primary=primary, **more)
'''


def written(top: str = "", inside: str = "", below: str = "") -> str:
    """The file with statements of one's own at the top level, and at two places in `build`."""
    indented = {
        name: textwrap.indent(textwrap.dedent(code), "    ")
        for name, code in (("inside", inside), ("below", below))
    }
    return FILE.format(top=textwrap.dedent(top), **indented)


def launched(folder, text: str, *args: str) -> tuple[int, str]:
    """(status, stderr) of the command line on an experiment file; what it imported is forgotten."""
    (folder / "experiments").mkdir(exist_ok=True)
    (folder / "experiments" / "mine.py").write_text(text)
    command = ["launch.py", "--experiment=mine", "--seeds=2", "--run.compilation_cache=", *args]
    errors, path = io.StringIO(), [*sys.path]
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            status = cli.main(command)
    finally:
        sys.path[:] = path
        for name in [n for n in sys.modules if n.partition(".")[0] == "experiments"]:
            del sys.modules[name]
    return status, errors.getvalue()
