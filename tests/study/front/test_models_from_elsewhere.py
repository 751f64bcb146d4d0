"""Networks of NNX and plain functions in a run: seeds, an adapter, going on, loading, leaving."""

import jax
import numpy as np
import pytest

import jaxtl
from jaxtl.export.files import export_run
from jaxtl.paths import flatten

EXPERIMENT = '''\
"""Do networks of other libraries learn?

    python launch.py --experiment=foreign
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.models import adapters, classes
from jaxtl.plan import Experiment, Stage, labelled, maximize


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 6


class Net(nnx.Module):
    def __init__(self, rngs):
        self.inner, self.norm = nnx.Linear(4, 6, rngs=rngs), nnx.BatchNorm(6, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        return self.dropout(nnx.relu(self.norm(self.inner(x))))


def build(config):
    rng = np.random.default_rng(0)
    rows = data.arrays(rng.normal(size=(24, 4)).astype(np.float32), np.arange(24) % 3)
    heads, tx = {"y": classes(3)}, optax.sgd(0.1)
    net = models.from_nnx(Net, heads)
    tuned = adapters.lora(net, ["backbone/body/inner/kernel"], 2)
    plain = models.from_functions(
        lambda rng, x: {"w": jax.random.normal(rng, (4, 5))},
        lambda params, x: jnp.tanh(x @ params["w"]),
        heads,
    )

    def stage(name, model, method, **options):
        domains = [labelled(rows, "y")]
        return Stage(
            name, model, method, domains=domains, batch_size=8, num_steps=config.steps, **options
        )

    source = stage("source", net, transfer.full(tx))
    method = transfer.grouped({"all": (("lora/.*", "heads/.*"), tx)})
    return Experiment(
        arms={
            "plain": [stage("plain", plain, transfer.full(tx))],
            "lora": [source, stage("lora", tuned, method, fresh=("lora/.*",))],
        },
        baseline="plain",
        evals={"rows": classification(rows, "y")},
        primary=maximize("rows", "accuracy"),
    )
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("foreign")


@pytest.fixture(scope="module")
def result(folder, quiet):
    (folder / "foreign.py").write_text(EXPERIMENT)
    return jaxtl.run(folder / "foreign.py", 2, folder / "runs", **quiet)


@pytest.mark.slow
def test_a_run_is_loaded_goes_on_and_leaves(result, folder, quiet):
    rows = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
    directory = folder / "runs" / "foreign"
    for arm in ("plain", "lora"):
        for i, seed in enumerate((0, 1)):
            logits = jaxtl.load(directory, arm, seed=seed).predict(rows)["logits"]["y"]
            accuracy = np.mean(logits.argmax(1) == np.arange(24) % 3)
            assert accuracy == pytest.approx(result[arm].metrics["rows/accuracy"][i])
    again = jaxtl.run(folder / "foreign.py", 2, folder / "runs", **quiet)
    np.testing.assert_array_equal(
        again["lora"].metrics["rows/loss"], result["lora"].metrics["rows/loss"]
    )
    predictor = jaxtl.load(directory, "lora")
    params, source = flatten(predictor.params), jaxtl.load(directory, "lora", stage="source")
    kernel = "backbone/body/inner/kernel"
    np.testing.assert_array_equal(params[kernel], flatten(source.params)[kernel])
    assert np.any(params["lora/backbone/body/inner/b"])
    assert set(flatten(predictor.state.statistics)) == {
        f"backbone/body/norm/{name}" for name in ("mean", "var")
    }
    said = export_run(directory, "safetensors", "lora")
    assert "arm lora" in said
    from safetensors.numpy import load_file

    leaves = load_file(directory / "export" / "lora.safetensors")
    merged = flatten(predictor.model.merge(predictor.params)[1])[kernel]
    np.testing.assert_array_equal(leaves[kernel], merged)
    export_run(directory, "stablehlo", "lora")
    program = jax.export.deserialize((directory / "export" / "lora.stablehlo").read_bytes())
    expected = predictor.predict(rows)["logits"]["y"]
    found = program.call(rows)["logits"]["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
