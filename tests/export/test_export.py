"""A run's model in files: its weights bit for bit, a program's predictions, and what goes wrong."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from leaving import TEST

import jaxtl
from jaxtl import cli, models
from jaxtl.export.files import program, weights_of, write_program
from jaxtl.export.predictor import Predictor
from jaxtl.export.request import FORMATS
from jaxtl.models import Block, classes
from jaxtl.paths import flatten
from jaxtl.plan import Method, Stage, State

IMAGES = TEST["image"]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def launch(capsys):
    """Runs a command in this process; (status, stdout, stderr)."""

    def run(*args):
        return cli.main(["launch.py", *map(str, args)]), *capsys.readouterr()

    return run


def made(model, inputs, **method):
    """A predictor of a model as it is initialised, batch statistics included."""
    read = jax.tree.map(
        lambda x: x[:1].astype(np.float32) if x.dtype == np.uint8 else x[:1], inputs
    )
    params, state = model.init(jax.random.key(1), read)
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), inputs)
    stage = Stage("made", model, Method(**method), domains=[], batch_size=1, num_steps=0)
    return Predictor(model, params, State(state), {}, specs, "a", (stage,), 0)


# Weights.


def test_weights_come_back_bit_for_bit(copied, launch):
    safetensors = pytest.importorskip("safetensors.numpy")
    status, output, errors = launch(f"--export={copied}", "--arm=two", "--seed=1")
    assert (status, errors) == (0, "")
    path = copied / "export" / "two.safetensors"
    size = -(-path.stat().st_size // 1000)
    assert output.startswith(f"{path} ({size} kB): arm two, stage then, seed 1\n")
    two = jaxtl.load(copied, "two", seed=1)
    expected, found = (
        flatten(two.params) | flatten(two.state.statistics),
        safetensors.load_file(path),
    )
    assert found.keys() == expected.keys() and "backbone/norm/mean" in found
    for name, leaf in expected.items():
        np.testing.assert_array_equal(found[name], leaf, err_msg=name, strict=True)

    about = json.loads(path.with_name("two.safetensors.json").read_text())
    summary = json.loads((copied / "summary.json").read_text())
    values = summary["arms"]["two"]["metrics"]["animal/accuracy"]
    assert about["metric"] == {
        "name": "animal/accuracy",
        "value": values["per_seed"][1],
        "mean": values["mean"],
    }
    assert about["inputs"] == {"shape": [4, 4, 1], "dtype": "uint8"}
    assert about["heads"]["animal"] == {"size": 3, "classes": ["cat", "dog", "owl"]}
    assert about["heads"]["other"] == {"size": 2, "classes": []}
    named = {"experiment": "leaving", "arm": "two", "stage": "then", "seed": 1, "names": "jaxtl"}
    assert named.items() <= about.items()
    assert path.stat().st_mode & 0o044 == Path(__file__).stat().st_mode & 0o044
    run_printed(output)

    assert launch(f"--export={copied}", "--arm=two", "--stage=first")[0] == 0
    about = json.loads(path.with_name("two.safetensors.json").read_text())
    assert (about["stage"], about["seed"], about["metric"]) == ("first", 3, None)


def run_printed(output, **names):
    """Run the Python that a command printed; its names afterwards."""
    code = output.split("\n\n", 1)[1]
    assert len(code.strip().splitlines()) == 3
    exec(code, names)
    return names


def test_adapters_are_merged(finished):
    adapter = jaxtl.load(finished, "adapter")
    leaves = weights_of(adapter)
    own, kernel = adapter.params["adapter"], adapter.params["heads"]["animal"]["kernel"]
    change = np.asarray(own["down"]) @ np.asarray(own["up"])
    assert np.abs(change).min() > 1e-4
    found = leaves["heads/animal/kernel"]
    np.testing.assert_allclose(found, kernel + change, rtol=1e-5)
    assert found.flags.c_contiguous  # safetensors writes another order without a word
    assert not [path for path in leaves if path.startswith("adapter")]
    assert leaves.keys() == flatten(jaxtl.load(finished, "two").params).keys() | {
        "backbone/norm/mean",
        "backbone/norm/var",
    }


def test_published_weights_keep_their_names(copied, launch):
    status, _, errors = launch(f"--export={copied}", "--arm=adapter")
    assert (status, errors) == (0, "")
    written = (copied / "export" / "adapter.safetensors").read_text()  # by the weights' own `save`
    assert written.split() == sorted(weights_of(jaxtl.load(copied, "adapter")))
    about = json.loads((copied / "export" / "adapter.safetensors.json").read_text())
    assert about["names"] == "published.bin"


# Programs.


@pytest.mark.parametrize("arm", ["two", "prototypes", "adapter"])
def test_a_program_predicts_what_the_model_does(copied, launch, arm):
    pytest.importorskip("flatbuffers")
    status, output, errors = launch(f"--export={copied}", "--format=stablehlo", f"--arm={arm}")
    assert (status, errors) == (0, "") and "# inputs: uint8[n, 4, 4, 1]" in output
    about = json.loads((copied / "export" / f"{arm}.stablehlo.json").read_text())
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    loaded = run_printed(output, inputs=IMAGES[:7])
    predictor = jaxtl.load(copied, arm)
    assert_same_logits(loaded["logits"], predictor, IMAGES[:7])
    assert_same_logits(loaded["program"].call(IMAGES)["logits"], predictor, IMAGES)


def assert_same_logits(logits, predictor, inputs):
    expected = predictor.predict(inputs)["logits"]
    assert logits.keys() == expected.keys()
    for head, values in expected.items():
        assert len(values) == len(logits[head]) and np.std(values) > 1e-3
        np.testing.assert_allclose(logits[head], values, rtol=1e-5, atol=1e-6)


def test_convolutions_lower_for_every_platform(tmp_path):
    pytest.importorskip("flatbuffers")
    conv = {"kernel_size": (3, 3), "conv_general_dilated": models.convolve}
    point = {"kernel_size": (1, 1), "conv_general_dilated": models.convolve}
    blocks = [
        Block("conv", nn.Conv(4, **conv), models.max_pool),
        Block("depthwise", nn.Conv(4, feature_group_count=4, **conv)),
        Block("point", nn.Conv(6, **point), nn.relu),
    ]
    predictor = made(models.from_blocks(blocks, {"y": classes(3)}), IMAGES)
    about = write_program(predictor, tmp_path / "program")
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    loaded = jax.export.deserialize((tmp_path / "program").read_bytes())
    for n in (1, 9):
        assert_same_logits(loaded.call(IMAGES[:n])["logits"], predictor, IMAGES[:n])


def test_a_program_of_several_inputs():
    class Words(nn.Module):
        @nn.compact
        def __call__(self, x):
            return (nn.Embed(9, 4)(x["ids"]) * x["mask"][..., None]).sum(1)

    rng = np.random.default_rng(0)
    words = {"ids": rng.integers(0, 9, (6, 5)), "mask": rng.integers(0, 2, (6, 5))}
    words = {name: values.astype(np.int32) for name, values in words.items()}
    predictor = made(models.from_linen(Words(), {"topic": classes(2)}), words)
    exported = program(predictor)
    for n in (1, 4):
        few = {name: values[:n] for name, values in words.items()}
        assert_same_logits(exported.call(few)["logits"], predictor, few)
    with pytest.raises(
        ValueError, match=r"\['ids'\] 30 values in 6 of 6 rows are no whole numbers"
    ):
        predictor.predict({**words, "ids": words["ids"] + 0.5})


def test_a_program_for_the_platforms_that_have_one(caplog):
    def predict(model, params, state, inputs):
        values = jnp.linalg.eigvals(jnp.array([[0.0, -2.0], [2.0, 0.0]]))  # not on a TPU
        output = model.apply(params, state.statistics, inputs)[0]
        return {"logits": {"y": output["logits"]["y"] * jnp.abs(values[0])}}

    predictor = made(models.linear({"y": classes(3)}), IMAGES, predict=predict)
    exported = program(predictor)
    assert "tpu" not in exported.platforms and "cpu" in exported.platforms
    assert f"is for {' and '.join(exported.platforms)} only: " in caplog.text
    assert_same_logits(exported.call(IMAGES)["logits"], predictor, IMAGES)


def test_a_model_of_one_batch_size_has_no_program():
    def predict(model, params, state, inputs):
        return {"logits": {"y": jnp.zeros((len(inputs), 3))}}

    predictor = made(models.linear({"y": classes(3)}), IMAGES, predict=predict)
    with pytest.raises(ValueError, match="stage 'made' has no program for any number") as error:
        program(predictor)
    assert "\n" not in str(error.value)


# The command line.


def test_wrong_requests_are_answered_without_jax(tmp_path):
    commands = {
        f"--export={tmp_path} --format=safetensor": "format 'safetensor'. Did you mean 'safetens",
        f"--export={tmp_path}": f"{tmp_path} holds no run",
        f"--export={tmp_path} --config.steps=3": "--config.steps=3: an export",
        f"--export={tmp_path} --seed=x": "--seed=x",
        "--experiment=digits --seed=3": "--seed goes with --export=RUN_DIR; did you mean --seeds?",
        "--experiment=digits --format=stablehlo": "--format goes with --export=RUN_DIR\n",
    }
    script = f"""
import sys
from jaxtl import cli
for command in {list(commands)!r}:
    assert cli.main(["launch.py", *command.split()]) == 1, command
assert not {{"jax", "safetensors", "flatbuffers"}} & set(sys.modules)
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("error: ") == len(commands) and "Traceback" not in done.stderr
    for expected in commands.values():
        assert expected in done.stderr, expected
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 2


@pytest.mark.parametrize(("form", "package"), FORMATS.items())
def test_a_missing_package(launch, monkeypatch, form, package):
    monkeypatch.setitem(sys.modules, package, None)
    status, _, errors = launch("--export=anywhere", f"--format={form}")
    expected = f"--format={form} needs the package {package}: pip install 'jaxtl[export]'"
    assert (status, errors) == (1, f"error: {expected}\n")


def test_what_cannot_be_exported(copied, launch):
    pytest.importorskip("safetensors")

    def refused(*args):
        status, output, errors = launch(f"--export={copied}", *args)
        assert (status, output, errors.count("\n")) == (1, "", 1), errors
        return errors

    assert "unknown arm 'tow'. Did you mean 'two'?" in refused("--arm=tow")
    assert "unknown seed '0'. Known: 1, 3." in refused("--seed=0")
    shutil.rmtree(copied / "stages" / "adapter")
    assert "arm 'adapter' of" in (message := refused("--arm=adapter"))
    assert "stage 'adapter' is not finished; the same command with --arms=adapter" in message
    assert not (copied / "export").exists()
    (copied / "export").write_text("")
    assert "error: cannot write" in refused("--arm=two")
