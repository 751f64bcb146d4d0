"""One command leaves out one domain after the other; none that is left out trains."""

import dataclasses
import functools
import io
import re

import numpy as np
import optax
import pytest
from rich.console import Console
from tiny import OPTIONS, blobs

from jaxtl import models, report
from jaxtl.methods import transfer
from jaxtl.metrics import Derived, classification
from jaxtl.plan import Experiment, Stage, labelled, maximize
from jaxtl.report.across.results import entry_of, summary_of
from jaxtl.report.held_out import CROSS, TRAINING
from jaxtl.study.experiment import run_experiment
from jaxtl.study.front.result import Result
from jaxtl.study.progress import Reporter
from jaxtl.study.run import Run
from jaxtl.study.traced import Sweep

DOMAINS = {
    name: blobs(name, 30, shift, seed=i)
    for i, (name, shift) in enumerate({"near": 0.0, "mid": 1.0, "far": 2.0}.items())
}
CONFIG = {"held_out": "near", "rate": 0.05}


def build(values, held_out="held_out", **changes):
    config = {**CONFIG, **values}
    out = config["held_out"].split("+")
    parts = {name: dataset.split(0.7) for name, dataset in DOMAINS.items()}
    model = models.mlp({"kind": models.classes(3)}, hidden=(8,))
    training = [name for name in DOMAINS if name not in out]

    def stage(name, method):
        domains = [labelled(parts[d][0], "kind") for d in training]
        return Stage(name, model, method, domains=domains, batch_size=4, num_steps=6)

    evals = {name: classification(part[1], "kind") for name, part in parts.items()}
    mean = lambda names, m: float(np.mean([m[f"{name}/accuracy"] for name in names]))  # noqa: E731
    derived = {
        "held_out/accuracy": Derived(functools.partial(mean, out), "max"),
        "training/accuracy": Derived(functools.partial(mean, training), "max"),
    }
    experiment = Experiment(
        arms={
            "erm": [stage("erm", transfer.full(optax.adam(config["rate"])))],
            "slow": [stage("slow", transfer.full(optax.sgd(config["rate"])))],
        },
        baseline="erm",
        evals=evals,
        primary=maximize("held_out", "accuracy"),
        derived=derived,
        select=maximize("training", "accuracy"),
        select_every=3,
        analyses=(),
        held_out=held_out,
    )
    return dataclasses.replace(experiment, **changes)


def run(directory, points, build=build):
    configs = [{**CONFIG, **point} for point in points]
    sweep = Sweep(points, configs, build) if points else None
    output = io.StringIO()
    asked = Run("out", dict(CONFIG), "0", (0, 1), ("erm", "slow"), directory, OPTIONS)
    reporter = Reporter(Console(file=output, width=300))
    return run_experiment(build({}), asked, reporter, sweep), output.getvalue()


ALONE, TWO = ["near", "mid"], ["near+mid"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    points = [{"held_out": out, "rate": rate} for out in ALONE + TWO for rate in (0.001, 0.1)]
    directory = tmp_path_factory.mktemp("held_out")
    return directory, *run(directory, points)


def test_means_are_those_of_the_points_that_a_rule_picks(swept):
    _, summary, _ = swept
    rules = summary["held_out"]["rules"]
    assert list(rules) == [TRAINING, CROSS]
    cells = {
        (p["config"]["held_out"], p["config"]["rate"]): p["arms"]["erm"]["metrics"]
        for p in summary["sweep"]
    }
    entry = rules[TRAINING]["erm"]
    expected = []
    for out in ALONE:
        rate = max((0.001, 0.1), key=lambda r: cells[out, r]["training/accuracy"]["mean"])
        assert entry["picked"][out] == {"rate": rate}
        expected.append(cells[out, rate]["held_out/accuracy"]["per_seed"])
    per_seed = entry["metrics"]["held_out/accuracy"]["per_seed"]
    np.testing.assert_allclose(per_seed, np.mean(expected, 0))
    np.testing.assert_allclose(entry["worst"]["per_seed"], np.min(expected, 0))
    gain = np.subtract(
        rules[TRAINING]["slow"]["metrics"]["held_out/accuracy"]["per_seed"], per_seed
    )
    np.testing.assert_allclose(
        rules[TRAINING]["slow"]["gain"]["held_out/accuracy"]["per_seed"], gain
    )


def test_terminal_and_page_show_each_rule_by_its_name(swept):
    directory, summary, _ = swept
    page = (directory / "report.html").read_text()
    output = io.StringIO()
    report.print_table(summary, Console(file=output, width=200))
    for text in (page, " ".join(output.getvalue().split())):
        assert "Each of 2 domains held out" in text
        assert f"picked by: {TRAINING}" in text and f"picked by: {CROSS}" in text
        assert f"Over the domains held out ({TRAINING}):" in text


def test_python_has_the_means_too(swept):
    directory, summary, _ = swept
    result = Result(summary, directory, None)
    arms = result.held_out[TRAINING]
    expected = summary["held_out"]["rules"][TRAINING]["slow"]
    np.testing.assert_allclose(
        arms["slow"].values, list(expected["metrics"]["held_out/accuracy"]["per_seed"])
    )
    assert arms["slow"].gain.mean == pytest.approx(expected["gain"]["held_out/accuracy"]["mean"])


def test_what_is_published_says_the_same(swept):
    _, summary, _ = swept
    rules = summary_of(entry_of(summary, {}))["held_out"]["rules"]
    for rule, arms in summary["held_out"]["rules"].items():
        for name, arm in arms.items():
            again = rules[rule][name]
            assert (again["verdict"], again["picked"]) == (arm["verdict"], arm["picked"])
            key = "held_out/accuracy"
            np.testing.assert_allclose(
                again["metrics"][key]["per_seed"], arm["metrics"][key]["per_seed"], atol=1e-3
            )


def refused(directory, message, **changes):
    with pytest.raises(ValueError, match=message) as error:
        run(directory, [], lambda values: build(values, **changes))
    assert len(str(error.value).splitlines()) == 1


def test_what_is_held_out_must_be_left_out(tmp_path):
    def leaky(values):
        experiment = build(values)
        chain = experiment.arms["slow"]
        seen = labelled(DOMAINS["near"].split(0.7)[0], "kind")
        domains = [*chain[0].domains, seen]
        arms = {**experiment.arms, "slow": [dataclasses.replace(chain[0], domains=domains)]}
        return dataclasses.replace(experiment, arms=arms)

    with pytest.raises(ValueError, match=r"stage 'slow' trains on .*the domain that is held out"):
        run(tmp_path, [], leaky)
    with pytest.raises(ValueError, match=r"held_out='mid'.*stage 'erm' trains on"):
        run(tmp_path, [{"held_out": "mid"}], lambda values: build({}))
    refused(tmp_path, "unknown field of the config 'hold_out'", held_out="hold_out")
    with pytest.raises(ValueError, match=r"held_out='nearr'.*'near'"):
        run(tmp_path, [{"held_out": "nearr"}], lambda values: build({}))


def test_selecting_by_a_derived_metric_reads_its_own_evaluations_alone(tmp_path):
    half = functools.partial(lambda m: m["near/accuracy"] + m["mid/accuracy"])
    derived = build({}).derived | {"both/accuracy": Derived(half, "max")}
    overlapping = build({}).evals | {"copy": classification(DOMAINS["mid"].split(0.7)[1], "kind")}
    message = re.escape("select 'both/accuracy' reads") + ".*'copy'"
    refused(
        tmp_path,
        message,
        derived=derived,
        evals=overlapping,
        select=maximize("both", "accuracy"),
    )
