"""Seeds, blocks of seeds and points of a sweep that stand on the same published weights."""

import dataclasses
import io

import numpy as np
import optax
import pytest
from rich.console import Console
from tiny import Numbers, experiment, stages, tiny_run

from jaxtl.methods import transfer
from jaxtl.paths import flatten
from jaxtl.plan import Analysis, Experiment
from jaxtl.study.experiment import run_experiment
from jaxtl.study.progress import Reporter
from jaxtl.study.traced import Sweep
from jaxtl.train.store.blocks import restore_chain

FROZEN = {f"backbone/body/dense/{leaf}" for leaf in ("kernel", "bias")}
LOOKS = []
pytestmark = pytest.mark.slow


def look(arm):
    """The first axis of each parameter of each stage of the arm, and the arrays of the frozen."""
    for stage in arm.stages:
        flat = flatten(arm.trained[stage.name].params)
        once = {path for path, leaf in flat.items() if len(leaf) == 1}
        LOOKS.append((stage.name, once, flat))
    return {}


def build(values) -> Experiment:
    """An arm of two stages from published weights, which both leave one layer as it is."""
    rate = values.get("rate", 0.05)
    method = transfer.partial(optax.adam(rate), freeze=("backbone/body/dense/.*",))
    tune = dataclasses.replace(
        stages()[1], name="tune", method=method, fresh=("heads/.*",), weights=Numbers(), num_steps=3
    )
    first = transfer.partial(optax.adam(0.05), freeze=("backbone/body/dense/.*",))
    more = dataclasses.replace(tune, name="more", fresh=(), weights=None)
    tune = dataclasses.replace(tune, method=first)
    plan = experiment()
    arms = {"scratch": [dataclasses.replace(plan.arms["scratch"][0], num_steps=0)]}
    arms["tuned"] = [tune, more]
    looks = [Analysis("look", look, in_summary=True)]
    return dataclasses.replace(plan, arms=arms, analyses=looks)


def launch(directory, seeds, points=(), arms=("tuned",)):
    run = tiny_run(directory, arms, seeds)
    reporter = Reporter(Console(file=io.StringIO(), width=200))
    rates = [{"rate": rate} for rate in points]
    sweep = Sweep(rates, rates, build) if rates else None
    LOOKS.clear()
    return run_experiment(build({}), run, reporter, sweep)


def test_blocks_of_seeds_share_what_none_of_them_trains(tmp_path):
    launch(tmp_path, (0, 1))
    launch(tmp_path, (2, 0, 1))  # a block of one seed, and one of two
    assert [name for name, *_ in LOOKS] == ["tune", "more"]
    for _, once, flat in LOOKS:
        assert once == FROZEN
        dense = flat["backbone/body/dense/kernel"]
        np.testing.assert_array_equal(dense, Numbers().read({"k": dense[0]})[0]["k"][None])
    last = flat["backbone/body/last/kernel"]
    chain = build({}).arms["tuned"]
    wanted = {path: leaf[0] for path, leaf in flat.items()}
    stored, _ = restore_chain(tmp_path, chain, [2, 0, 1], wanted)
    np.testing.assert_array_equal(stored["backbone/body/last/kernel"], last)
    assert {path for path, leaf in stored.items() if len(leaf) == 1} == FROZEN


def test_points_of_a_sweep_share_it_too(tmp_path):
    launch(tmp_path, (0, 1), points=(0.02, 0.1, 0.2))  # besides the experiment as it is
    swept = [flat for name, once, flat in LOOKS if name == "more" and once == FROZEN]
    assert len(swept) == len([name for name, *_ in LOOKS if name == "more"]) == 4
    kernels = [flat["backbone/body/dense/kernel"] for flat in swept]
    assert all(np.shares_memory(kernels[0], kernel) for kernel in kernels[1:])
