"""A chain of tasks in the engine: EWC remembers them all, and the summary tells how each fared."""

import dataclasses

import jax
import numpy as np
import optax
from tiny import blobs

from jaxtl import models
from jaxtl.measure.analyses.forgetting import measure as forgetting
from jaxtl.measure.analyses.tasks import measure_history
from jaxtl.measure.declarations import teaching_stages, undeclared
from jaxtl.measure.evaluate import Measured
from jaxtl.measure.results import TrainedArm
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.paths import flatten
from jaxtl.plan import Experiment, Stage, State, labelled, maximize, unlabelled
from jaxtl.train.feed.examples import columns
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve
from jaxtl.train.state import start

ADAM, MODEL = optax.adam(1e-2), models.mlp({"blob": classes(3)}, hidden=(8,))
TASKS = [blobs(f"task_{i}", 24, shift=float(i), seed=i) for i in (1, 2, 3)]


def chain(arm, method, former=False, steps=4):
    first = [labelled(TASKS[0], "blob")]
    stages = [
        Stage(
            "task_1", MODEL, FIRST, domains=first, batch_size=8, num_steps=steps, trains=["task_1"]
        )
    ]
    for i in (1, 2):
        domains = [labelled(TASKS[i], "blob")]
        read = {"former": labelled(TASKS[i - 1], "blob")} if former else {}
        task = f"task_{i + 1}"
        stages.append(
            Stage(
                f"{arm}_{task}",
                MODEL,
                method,
                domains=domains,
                batch_size=8,
                num_steps=steps,
                trains=[task],
                data=read,
            )
        )
    return stages


FIRST = transfer.full(ADAM)
EWC = transfer.ewc(ADAM, strength=10.0)


def begun(stage, parent, source):
    """(setup, params, state) at the start of a stage that follows another one."""
    setup = resolve(stage, parent)
    full = start(over_seeds(setup, (0, 1)), source)
    return setup, full.params, full.state


def moved(params, by):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + np.float32(by * rng.normal(size=leaf.shape)), params)


def test_ewc_remembers_every_former_task():
    stages = chain("ewc", EWC, former=True)
    setup, params, state = begun(stages[0], None, None)
    fishers = []
    for i in (0, 1):
        params = moved(params, 0.5)
        setup, params, state = begun(stages[i + 1], setup, (params, state))
        per_seed = []
        for seed in (0, 1):
            own = jax.tree.map(lambda leaf, s=seed: np.asarray(leaf)[s], params)
            former = columns(labelled(TASKS[i], "blob"), MODEL.heads, seed)
            per_seed.append(transfer.exact_fisher(MODEL, own, State({}), former, lambda path: True))
        fishers.append(flatten(jax.tree.map(lambda *leaves: np.stack(leaves), *per_seed)))
        for path, leaf in flatten(state.method["precision"]).items():
            total = sum(fisher[path] for fisher in fishers)
            np.testing.assert_allclose(leaf, total, rtol=1e-4, atol=1e-8)
            assert total.any()


def test_wise_ft_goes_back_to_the_start_of_the_stage_before():
    domains = [labelled(TASKS[1], "blob")]
    first = Stage(
        "first", MODEL, FIRST, domains=[labelled(TASKS[0], "blob")], batch_size=8, num_steps=4
    )
    fine = Stage(
        "fine", MODEL, transfer.anchored(FIRST), domains=domains, batch_size=8, num_steps=4
    )
    wise = Stage("wise", MODEL, transfer.wise_ft(0.25), domains=domains, batch_size=8, num_steps=0)
    setup, params, state = begun(first, None, None)
    setup, before, state = begun(fine, setup, (params, state))
    after = moved(before, 1.0)
    _, between, _ = begun(wise, setup, (after, state))
    before, after = flatten(before), flatten(after)
    for path, leaf in flatten(between).items():
        expected = 0.75 * np.asarray(before[path]) + 0.25 * np.asarray(after[path])
        np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-6)


def experiment(**arms):
    evals = {f"task_{i + 1}": classification(task, "blob") for i, task in enumerate(TASKS)}
    primary = maximize("mean", "accuracy")
    return Experiment(
        arms, "ewc", evals, primary=primary, derived={"mean/accuracy": lambda metrics: 0.0}
    )


def measure(stages, tasks=3):
    """After stage s, task t has accuracy 0.1 s + 0.01 t, of two seeds that differ by 0.5."""
    return {
        stage.name: {
            f"task_{t}": Measured({"accuracy": 0.1 * s + 0.01 * t + np.array([0.0, 0.5]),
                                   "loss": np.ones(2)}, None)
            for t in range(1, tasks + 1)
        }
        for s, stage in enumerate(stages, 1)
    }  # fmt: skip


def arm(stages, plan, tasks=3):
    """An arm of these stages in an experiment."""
    plan = dataclasses.replace(plan, arms={"ewc": stages})
    return TrainedArm("ewc", plan, {}, measure(stages, tasks), (0, 1))


def test_every_evaluation_after_every_stage():
    stages = chain("ewc", EWC, former=True)
    found = measure_history(arm(stages, experiment()))
    assert list(found) == ["task_1", "ewc_task_2", "ewc_task_3"]
    for s, row in enumerate(found.values(), 1):
        assert list(row) == [f"task_{t}/accuracy" for t in (1, 2, 3)]
        for t, values in enumerate(row.values(), 1):
            np.testing.assert_allclose(values, [0.1 * s + 0.01 * t, 0.5 + 0.1 * s + 0.01 * t])


def test_only_chains_of_tasks_have_a_matrix():
    stages, plan = chain("ewc", EWC), experiment()
    assert measure_history(arm(stages[:1], plan)) == {}
    assert len(measure_history(arm(stages[:2], plan))) == 2  # both say what they train
    source = dataclasses.replace(stages[0], name="source", trains=())
    assert measure_history(arm([source, stages[1]], plan)) == {}
    assert measure_history(arm(stages, plan, tasks=0)) == {}


def test_only_the_first_task_can_be_forgotten_since_the_first_stage():
    stages = chain("ewc", EWC)
    lost = forgetting(arm(stages, experiment()))
    assert set(lost) == {"task_1/accuracy", "task_1/loss"}
    np.testing.assert_allclose(lost["task_1/accuracy"], [-0.2, -0.2])


def test_what_a_stage_is_called_decides_nothing():
    """`pretrain_task_3` is no stage of task_3, and `2` is one of task_2, as they say."""
    names = ("pretrain_task_3", "2", "task_12")
    stages = [
        dataclasses.replace(stage, name=name)
        for stage, name in zip(chain("ewc", EWC), names, strict=True)
    ]
    own = teaching_stages(stages, experiment())
    assert own == {f"task_{i}": name for i, name in enumerate(names, 1)}
    assert set(forgetting(arm(stages, experiment()))) == {
        "task_1/accuracy",
        "task_1/loss",
    }


def test_without_declarations_a_head_of_its_own_tells_the_task():
    heads = {f"head_{i}": classes(3) for i in (1, 2, 3)}
    model = models.mlp(heads, hidden=(8,))
    stages = [
        Stage(
            name,
            model,
            FIRST,
            domains=[labelled(TASKS[i], f"head_{i + 1}"), *more],
            batch_size=8,
            num_steps=4,
        )
        for i, (name, more) in enumerate([
            ("a", []),
            ("b_task_3", [labelled(TASKS[0], "head_1", weight=0.0)]),
            ("c", [unlabelled(TASKS[0], "head_1")]),
        ])
    ]  # fmt: skip
    evals = {f"task_{i + 1}": classification(task, f"head_{i + 1}") for i, task in enumerate(TASKS)}
    plan = dataclasses.replace(experiment(ewc=stages), evals=evals)
    assert teaching_stages(stages, plan) == {"task_1": "a", "task_2": "b_task_3", "task_3": "c"}
    assert set(forgetting(arm(stages, plan))) == {"task_1/accuracy", "task_1/loss"}
    shared = {**evals, "again": classification(TASKS[1], "head_2")}
    assert teaching_stages(stages, dataclasses.replace(plan, evals=shared)).keys() == {
        "task_1",
        "task_3",
    }


def test_a_metric_without_a_direction_is_not_said_to_be_forgotten():
    stages, plan = chain("ewc", EWC), experiment()
    evals = {
        name: dataclasses.replace(evaluation, directions={"loss": "max"})
        for name, evaluation in plan.evals.items()
    }
    lost = forgetting(arm(stages, dataclasses.replace(plan, evals=evals)))
    assert set(lost) == {"task_1/loss"}
    assert undeclared(dataclasses.replace(plan, evals=evals)) == []
    silent = {name: dataclasses.replace(e, directions={}) for name, e in evals.items()}
    plan = dataclasses.replace(plan, evals=silent, derived={"worst/error": lambda metrics: 0.0})
    lines = undeclared(plan)
    assert len(lines) == 4 and "'worst/error' is no Derived(function, direction)" in lines[-1]
