"""A run's model loaded in one call, without its data: the right one, with the right numbers."""

import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from leaving import TEST

import jaxtl
from jaxtl import data, models
from jaxtl.models import classes
from jaxtl.paths import flatten
from jaxtl.plan import Method, Stage, labelled, unlabelled
from jaxtl.train.resolve.stage import resolve
from jaxtl.train.store.interface import abstract_inputs, interface

IMAGES, LABELS = TEST["image"], TEST["label"]


def accuracy(predictor):
    logits = predictor.predict(IMAGES)["logits"]["animal"]
    return float(np.mean(np.argmax(logits, 1) == LABELS))


def measured(run):
    """{arm: {seed: accuracy}}"""
    summary = json.loads((run / "summary.json").read_text())
    return {
        name: dict(
            zip(summary["seeds"], arm["metrics"]["animal/accuracy"]["per_seed"], strict=True)
        )
        for name, arm in summary["arms"].items()
    }


def test_importing_jaxtl_imports_nothing_else():
    script = """
import sys
import jaxtl
assert jaxtl.__version__ and not hasattr(jaxtl, "laod")
assert not {"jax", "numpy", "absl"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_predictions_are_those_that_were_measured(finished):
    found = measured(finished)
    assert len({value for arm in found.values() for value in arm.values()}) > 3
    for arm, seeds in found.items():
        for seed, value in seeds.items():
            assert accuracy(jaxtl.load(finished, arm, seed=seed)) == pytest.approx(value), (
                arm,
                seed,
            )


def test_the_outputs_are_the_models(finished):
    two = jaxtl.load(finished, "two", seed=1)
    output = two.predict(IMAGES[:5])
    expected, _ = two.model.apply(
        two.params, two.state.statistics, IMAGES[:5].astype(np.float32) / 255
    )
    np.testing.assert_allclose(output["features"], expected["features"], atol=1e-6)
    for head, size in {"animal": 3, "other": 2}.items():
        assert two.heads[head].size == size
        np.testing.assert_allclose(
            output["logits"][head], expected["logits"][head], rtol=1e-5, atol=1e-6
        )
    floats = two.predict(IMAGES[:5] / 255)
    np.testing.assert_allclose(floats["features"], output["features"], atol=1e-5)
    assert two.class_names == {"animal": ("cat", "dog", "owl")}
    assert two.inputs == jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.uint8)


def test_seeds_and_stages_are_told_apart(finished):
    one, three = (flatten(jaxtl.load(finished, "two", seed=seed).params) for seed in (1, 3))
    first = flatten(jaxtl.load(finished, "two", "first", 1).params)
    prototypes = flatten(jaxtl.load(finished, "prototypes", seed=1).params)
    for path in ("backbone/dense/kernel", "heads/animal/kernel"):
        assert not np.array_equal(one[path], three[path])
        assert not np.array_equal(one[path], first[path])
        np.testing.assert_array_equal(prototypes[path], first[path])  # nothing trains there


def test_a_model_computes_in_the_type_that_its_stage_was_trained_in(finished, edited, caplog):
    expected = jaxtl.load(finished, "two").predict(IMAGES)["logits"]["animal"]

    def in_bfloat16_long_ago(record):
        record["identity"]["dtype"] = "bfloat16"
        record["made_with"]["versions"]["jax"] = "0.1"

    run = edited("stages/then/stage.json", in_bfloat16_long_ago)
    rounded = jaxtl.load(run, "two").predict(IMAGES)["logits"]["animal"]
    assert rounded.dtype == jnp.float32
    gap = np.abs(rounded - expected).max() / np.abs(expected).max()
    assert 1e-4 < gap < 3e-2
    assert "trained with other versions (jax: there '0.1'" in caplog.text


def test_the_config_of_the_last_launch_is_not_that_of_an_earlier_stage(finished, edited):
    expected = jaxtl.load(finished, "two").predict(IMAGES)["logits"]["animal"]
    run = edited("config.json", lambda record: record["config"].update(steps=1))
    outputs = jaxtl.load(run, "two").predict(IMAGES)["logits"]["animal"]
    np.testing.assert_array_equal(outputs, expected)


def test_a_model_that_computes_something_else_is_refused(copied, tmp_path, monkeypatch):
    run = changed_file(copied, tmp_path, monkeypatch, "nn.relu", "nn.tanh")
    message = refused(run, "two")
    assert "leaving.py has changed since: its model computes something else" in message


def test_a_method_predicts_as_it_says(finished):
    prototypes = jaxtl.load(finished, "prototypes", seed=3)
    centres = prototypes.state.method
    assert type(centres).__name__ == "Centres" and centres.scale == 2
    output = prototypes.predict(IMAGES)
    features, centre = np.asarray(output["features"]), np.asarray(centres.centre)
    expected = -2 * ((features[:, None] - centre) ** 2).sum(-1)
    np.testing.assert_allclose(output["logits"]["animal"], expected, rtol=1e-4, atol=1e-5)
    assert jaxtl.load(finished, "two").state.method is None


def test_the_best_arm_and_the_first_seed_are_the_defaults(finished, edited):
    means = {arm: np.mean(list(seeds.values())) for arm, seeds in measured(finished).items()}
    ranked = sorted(means, key=means.get)
    assert means[ranked[0]] < means[ranked[1]] < means[ranked[2]]
    best = jaxtl.load(finished)
    assert (best.arm, best.seed) == (ranked[-1], 3)
    assert jaxtl.load(finished, stage="first").arm == max(("two", "prototypes"), key=means.get)

    run = edited("summary.json", lambda summary: summary["primary"].update(direction="min"))
    assert jaxtl.load(run).arm == ranked[0]

    def undefined(summary):
        summary["arms"][ranked[0]]["metrics"]["animal/accuracy"]["mean"] = None

    assert jaxtl.load(edited("summary.json", undefined)).arm == ranked[1]


def test_a_seed_that_failed_is_not_the_default(edited, caplog):
    run = edited("stages/first/stage.json", lambda r: r.update(failed_seeds={"seed 3": 2}))
    assert jaxtl.load(run, "two").seed == 1 and not caplog.records
    assert jaxtl.load(run, "two", seed=3).seed == 3
    assert "seed 3 failed" in caplog.text


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ({"arm": "tow"}, "unknown arm 'tow'. Did you mean 'two'?"),
        ({"stage": "frist"}, "unknown stage 'frist'. Did you mean 'first'?"),
        ({"arm": "adapter", "stage": "first"}, "unknown stage 'first'. Known: adapter."),
        ({"seed": 2}, "unknown seed '2'. Known: 1, 3."),
    ],
)
def test_unknown_names(finished, which, expected):
    with pytest.raises(ValueError) as error:
        jaxtl.load(finished, **which)
    assert expected in str(error.value)


def refused(*arguments):
    with pytest.raises(ValueError) as error:
        jaxtl.load(*arguments)
    return str(error.value)


def test_what_is_not_there_or_not_finished(finished, edited, tmp_path):
    assert "holds no run" in refused(tmp_path / "nowhere")
    assert "it holds the runs leaving" in refused(finished.parent)

    run = edited("stages/then/stage.json", lambda record: record.update(finished=False))
    assert "arm 'two'" in refused(run, "two") and "--arms=two goes on" in refused(run, "two")
    assert jaxtl.load(run, "two", "first").stages[-1].name == "first"
    (run / "summary.json").unlink()
    assert "has not ended: name an arm" in refused(run)

    (run / "stages/prototypes/checkpoints/0/state/_METADATA").write_text("{")
    assert "stage 'prototypes' of" in (message := refused(run, "prototypes"))
    assert "damaged checkpoint 0" in message


def test_stages_of_another_run_are_named(edited):
    def loaded_elsewhere(record):
        record["source_run"] = "runs/other"

    run = edited("stages/then/stage.json", loaded_elsewhere)
    shutil.rmtree(run / "stages/first")
    assert "if it was loaded from runs/other, load it from there" in refused(run, "two", "first")
    assert jaxtl.load(run, "two").class_names["animal"] == ("cat", "dog", "owl")


def changed_file(run, tmp_path, monkeypatch, old, new):
    """The run launched from a place that is gone; in the current directory, a changed file."""
    environment = json.loads((run / "environment.json").read_text())
    file = f"{environment['folder']}/experiments/leaving.py"
    environment["folder"] = str(tmp_path / "gone")
    (run / "environment.json").write_text(json.dumps(environment))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    with open(file) as original:
        text = original.read()
    assert old in text
    (tmp_path / "experiments" / "leaving.py").write_text(text.replace(old, new))
    return run


def test_a_changed_experiment_that_has_the_same_model_is_used(
    copied, tmp_path, monkeypatch, caplog
):
    expected = jaxtl.load(copied, "two").predict(IMAGES)["logits"]["animal"]
    assert not caplog.records
    run = changed_file(copied, tmp_path, monkeypatch, "    steps: int = 12\n", "")
    path = tmp_path / "experiments" / "leaving.py"
    beside = "from beside_leaving import STEPS\n"
    path.write_text(beside + path.read_text().replace("config.steps", "STEPS"))
    before = [*sys.path]
    with pytest.raises(ModuleNotFoundError, match="beside_leaving"):
        jaxtl.load(run, "two")
    (tmp_path / "beside_leaving.py").write_text("STEPS = 12\n")
    predictor = jaxtl.load(run, "two")
    assert sys.path == before
    assert "has no field steps any more" in caplog.text
    np.testing.assert_array_equal(predictor.predict(IMAGES)["logits"]["animal"], expected)


def test_parameters_that_do_not_fit_are_listed(copied, tmp_path, monkeypatch):
    new = '{"beast": classes(3), "other": classes(4)}'
    run = changed_file(
        copied, tmp_path, monkeypatch, '{"animal": classes(3), "other": classes(2)}', new
    )
    path = tmp_path / "experiments" / "leaving.py"
    path.write_text(path.read_text().replace('"animal"', '"beast"'))
    message = refused(run, "two")
    for line in (
        "stage 'then' of",
        "heads/beast/kernel: not there; closest: ",
        "heads/other/kernel: there [8, 2], model [8, 4]",
        "heads/animal/bias: there only",
    ):
        assert line in message, message
    assert "backbone" not in message and "fresh" not in message


def test_a_missing_experiment(copied, tmp_path, monkeypatch):
    run = changed_file(copied, tmp_path, monkeypatch, "", "")
    (tmp_path / "experiments" / "leaving.py").unlink()
    message = refused(run)
    assert "gone/experiments/leaving.py and " in message
    assert str(tmp_path / "experiments/leaving.py") in message


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (IMAGES[0], "uint8[4, 4, 1] has one row, without their axis"),
        (IMAGES[:, :3], "they are uint8[30, 3, 4, 1] for the model, which reads uint8[n, 4, 4, 1]"),
        (IMAGES.astype(np.int64) * 2, "values in 30 of 30 rows are outside 0 to 255"),
        (IMAGES.astype(np.float32), "outside [0, 1]; the data are uint8, so that 0 to 255 must"),
        (-IMAGES.astype(np.int8), "outside 0 to 255"),
        (IMAGES > 99, "bool is no uint8 of 0 to 255"),
        (np.where(IMAGES > 9, np.nan, 0.5), "outside [0, 1]"),
        ({"image": IMAGES}, "expected an array, got {image}"),
    ],
)
def test_inputs_that_the_model_does_not_read(finished, inputs, expected):
    with pytest.raises(ValueError, match="stage 'then' does not read") as error:
        jaxtl.load(finished, "two").predict(inputs)
    assert expected in str(error.value)
    assert str(error.value).endswith("it was trained on uint8[n, 4, 4, 1]")
    assert len(str(error.value)) < 250


def test_images_may_be_other_integers_or_floats_in_0_to_1(finished):
    two = jaxtl.load(finished, "two")
    expected = two.predict(IMAGES)["logits"]["animal"]
    others = IMAGES.tolist(), *(IMAGES.astype(dtype) for dtype in (np.uint16, np.int64))
    for images in (*others, IMAGES / 255, jnp.asarray(IMAGES)):
        found = two.predict(images)["logits"]["animal"]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_outputs_that_are_not_finite(finished):
    two = jaxtl.load(finished, "two", seed=1)
    broken = jax.tree.map(lambda leaf: leaf * np.inf, two.params)
    with pytest.raises(ValueError, match="stage 'then', seed 1, are not finite for 7 of 7 rows"):
        dataclasses.replace(two, params=broken).predict(IMAGES[:7])


def describe(inputs, model, *, augment=None, **more):
    """(stage's interface, as it comes back from JSON; its setup)."""
    dataset = data.arrays(inputs, np.arange(6) % 2, classes=["no", "yes"])
    domains = [
        unlabelled(dataset, "y", augment=augment),
        labelled(dataset, "y", augment=augment),
    ]
    setup = resolve(
        Stage("s", model, Method(fresh_frozen=True), domains=domains, batch_size=2, num_steps=0),
        None,
    )
    return json.loads(json.dumps(interface(setup))), setup


def test_what_a_stage_says_of_its_inputs():
    heads = {"y": classes(2), "z": classes(4)}
    images = np.zeros((6, 8, 8, 1), np.uint8)
    crop = data.random_crop(size=(6, 5))
    described, _ = describe(images, models.linear(heads), augment=crop)
    assert described == {
        "inputs": {"shape": [6, 5, 1], "dtype": "uint8"},
        "classes": {"y": ["no", "yes"]},
        "shape": {
            "roles": ["target", "source"],
            "rows": [6, 6],
            "classes": {"y": 2},
            "batch_size": 2,
        },
    }
    several = {"pair": (images, np.zeros((6, 3))), "ids": np.zeros((6, 7), np.int64)}
    model = models.from_blocks([], heads, before=lambda x: x["pair"][1])
    described, setup = describe(several, model)
    back = abstract_inputs(described["inputs"])
    assert jax.tree.structure(back) == jax.tree.structure(setup.inputs)
    assert back["pair"][0] == jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.uint8)
    assert back["pair"][1] == jax.ShapeDtypeStruct((1, 3), jnp.float32)
    assert back["ids"] == jax.ShapeDtypeStruct((1, 7), jnp.int32)
