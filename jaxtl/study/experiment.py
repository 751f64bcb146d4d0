"""Run an experiment: check everything, train each stage once, measure each arm, report."""

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxtl import features, report
from jaxtl.data.table import unchanging
from jaxtl.experiment_file import code_digest
from jaxtl.files import Damaged, remove_partials, why_unwritable, write_json, writing
from jaxtl.lock import lock
from jaxtl.measure.declarations import declared_metrics, selecting_metric
from jaxtl.measure.evaluate import not_finite_lines
from jaxtl.measure.outcome import arm_result, asked
from jaxtl.measure.results import ExperimentResult
from jaxtl.models import computing_in
from jaxtl.paths import unknown
from jaxtl.plan import Experiment, Params, State
from jaxtl.study.checks.experiments import Node, check_arms, plan_stages, warnings
from jaxtl.study.checks.held_out import check_held_out
from jaxtl.study.checks.label_space import match_classes
from jaxtl.study.checks.prepared import check_prepared
from jaxtl.study.continuation import (
    plan_going_on,
    refusal,
    start_over,
    train_parts,
    work_ahead,
)
from jaxtl.study.earlier import Earlier, changed_evaluations, earlier, made_from
from jaxtl.study.progress import Reporter
from jaxtl.study.run import ALL, Checked, Done, Run, environment, numeric_settings, run_record
from jaxtl.study.source_run import SourceRun
from jaxtl.study.sweep import plan_sweep, train_sweep
from jaxtl.study.traced import Sweep
from jaxtl.study.validation import (
    block_at_end,
    evaluation_digests,
    make_evaluator,
    make_validation,
    named_heads,
)
from jaxtl.timing import phase, seconds
from jaxtl.train.mesh import check_batch, from_primary, in_primary, is_primary, make_mesh
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import leftovers
from jaxtl.train.state import Validation
from jaxtl.train.store.blocks import Trained
from jaxtl.train.store.preprocessing import write_preprocessing

logger = logging.getLogger(__name__)


@unchanging()
def run_experiment(
    experiment: Experiment, run: Run, reporter: Reporter, sweep: Sweep | None = None
) -> dict[str, Any]:
    """Train and measure the chosen arms; returns the summary that was written.

    Args:
        experiment, run: what to run and how.
        reporter: says what is going on.
        sweep: further points of the experiment, over some fields of its config.

    Raises:
        ValueError: bad input of any kind, before any training.
        Interrupted: a signal stopped a stage; its state is saved.
        NotWritten: a file of the run cannot be.
    """
    mesh = make_mesh(run.options.mesh)
    check_prepared(experiment, run.arms or experiment.arms, sweep)
    experiment = computing_in(experiment, run.options.dtype)
    experiment, notes = match_classes(experiment)
    with in_primary(lock(run.directory)):
        with reporter.busy(f"checking {run.name}"), phase("check"):
            checked = check(experiment, run)
        for node in checked.nodes.values():
            check_batch(mesh, node.setup.stage.name, node.setup.stage.batch_size)
        if checked.unwritable:
            return finished_summary(checked, sweep)
        if is_primary():
            remove_partials(run.directory)
        with jax.set_mesh(mesh):
            with reporter.busy("checking the points of the sweep"), phase("check"):
                plan = plan_sweep(checked, sweep) if sweep else None
            plans = {**checked.plans, **(plan.plans if plan else {})}
            if text := from_primary(refusal(run, plans)):
                raise ValueError(text)
            before = earlier(checked, written_summary(run))
            lines = [*notes, *checked.warnings, *(plan.warnings if plan else ())]
            lines += [
                f"evaluation {name!r} has changed since the last report: all that this run "
                "asks for is measured anew"
                for name in before.changed
            ]
            for line in dict.fromkeys(lines):
                reporter.say(("warning: ", "yellow"), line)
            start_over(plans.values())
            reporter.begin(run, checked.arms, work_ahead(plans, checked.nodes))
            if is_primary():
                report.import_ahead()
            done = train_arms(checked, reporter, swept=bool(plan and plan.points))
            points = train_sweep(checked, plan, done, reporter) if plan else ()
            with reporter.busy("writing the report"), phase("report"):
                return write_results(checked, done, points, before)


def written_summary(run: Run) -> dict[str, Any] | None:
    """The summary.json of an earlier launch, None if there is none or it is damaged."""
    try:
        return report.load_summary(run.directory / "summary.json")
    except (FileNotFoundError, Damaged):  # the report says so when it makes it anew
        return None


def write_results(
    checked: Checked, done: Done, points: Sequence[Any], before: Earlier
) -> dict[str, Any]:
    """The summary, written with the rest of the report."""
    experiment, run = checked.experiment, checked.run
    result = ExperimentResult(
        experiment=run.name,
        config=run.config,
        seeds=run.seeds,
        baseline=experiment.baseline,
        selection=selection(experiment),
        primary=experiment.primary,
        select=selecting_metric(experiment),
        arms=done.results,
        analyses=asked(experiment),
        environment=environment(run),
        headline=run.headline,
        sweep=points,
        held_out=experiment.held_out,
        oracle=run.oracle,
        declared=tuple(declared_metrics(experiment).values()),
        evaluations=checked.evaluations,
        made_from=made_from(checked),
    )
    if not is_primary():
        return report.summarize(result)
    with writing(run.directory):
        summary = report.write(result, run.directory, before.outdated)
        clocked = {"seconds": seconds(), "features": features.counted()}
        if clocked := {name: value for name, value in clocked.items() if value}:
            summary = {**summary, **clocked}
            report.write_summary(run.directory / "summary.json", summary)
        return summary


def selection(experiment: Experiment) -> str:
    """Which parameters are evaluated, in words."""
    select = selecting_metric(experiment)
    if select is None:
        return "last step"
    return f"best {select.key} of every {experiment.select_every} steps, each seed"


def check(experiment: Experiment, run: Run) -> Checked:
    """Validation for everything that can be wrong with an experiment, and what is done of it.

    Raises:
        ValueError: something is; all of it is listed where possible.
    """
    if not run.seeds:
        raise ValueError("at least one seed is needed, as in --seeds=5")
    arms = run.arms or tuple(experiment.arms)
    check_arms(experiment, arms)
    unwritable = claim(run)
    nodes = plan_stages(experiment, arms, run.seeds)
    check_held_out(experiment, nodes, run.config)
    check_overwrite(run, nodes)
    source_run = None
    if run.options.source_run:
        source_run = SourceRun(Path(run.options.source_run), run.seeds)
        source_run.check(nodes, experiment, arms)
        nodes = source_run.as_loaded(nodes)
    lines = list(warnings(experiment, nodes))
    if settings := numeric_settings():
        text = ", ".join(f"{name}={value}" for name, value in settings.items())
        lines.append(f"{text} changes the numbers; config.json holds it")
    return Checked(
        experiment=experiment,
        run=run,
        arms=arms,
        nodes=nodes,
        plans=plan_going_on(experiment, nodes, run, source_run),
        source_run=source_run,
        warnings=lines,
        evaluations=evaluation_digests(experiment, run.seeds, run.experiment_digest),
        unwritable=unwritable,
    )


def check_overwrite(run: Run, nodes: Mapping[str, Node]) -> None:
    """Raises ValueError if a stage that is to start over is none of the run's."""
    for name in run.overwrite:
        if name not in (ALL, *nodes):
            raise ValueError(unknown("stage of --overwrite", name, [*nodes, ALL]))


def train_arms(checked: Checked, reporter: Reporter, *, swept: bool) -> Done:
    """Train each stage once and measure each arm.

    A stage is on the devices while it trains and is measured, on the host while another stage or an
    analysis may ask for its parameters, and is gone then.

    Args:
        swept: points of a sweep may ask for them after that.
    """
    experiment, run, nodes = checked.experiment, checked.run, checked.nodes
    write_json(run.directory / "config.json", run_record(run))
    file: dict[str, Any] = {"file": None} if run.call else {}  # a program made the experiment
    if run.file:
        file = {"file": str(run.file), "code": code_digest(run.file.read_bytes())}
    write_json(run.directory / "environment.json", environment(run) | file)
    stages = [node.setup.stage for node in nodes.values()]
    write_preprocessing(run.directory, experiment, stages)
    done = Done(make_evaluator(experiment, run.seeds, run.options), {}, {}, {}, {})
    for arm in checked.arms:
        for stage in experiment.arms[arm]:
            name = stage.name
            if name in done.trained:
                continue
            setup = nodes[name].setup
            source = weights_before(checked, name, done)
            if checked.source_run is not None and name in checked.source_run.stages:
                done.trained[name] = checked.source_run.load(setup)
                measured = done.trained[name].on_devices()
                where = checked.source_run.directory
                reporter.say("stage ", (name, "bold"), f": loaded from {where}")
            else:
                measured = train_node(checked, name, source, done, reporter)
                done.trained[name] = measured.on_host(source)
            params, state = measured.params, measured.state
            heads = named_heads(nodes, name)
            done.cuts[name] = block = block_at_end(nodes, name, run.options)
            done.measured[name] = done.evaluator.measure(
                setup.stage.model, stage.method, params, state, heads, block
            )
            del measured, params, state
            for line in not_finite_lines(done.measured[name], run.seeds):
                reporter.say(("warning: ", "yellow"), f"after stage {name!r}, {line}")
        parts = done.trained, done.measured
        done.results[arm] = arm_result(arm, experiment, *parts, run.seeds, done.cuts)
        ahead = checked.arms[checked.arms.index(arm) + 1 :]
        asked_for = {stage.name for later in ahead for stage in experiment.arms[later]}
        for name in () if swept else done.trained.keys() - asked_for:
            done.trained[name] = done.trained[name].without_weights()
    return done


def claim(run: Run) -> str | None:
    """Make the run's directory.

    Returns:
        Why it cannot be written though it holds a run, None if it can.

    Raises:
        ValueError: it cannot be written and holds no run, or it holds one that is not to go on.
    """
    unwritable = why_unwritable(run.directory)
    begun = (run.directory / "config.json").exists()
    if unwritable and not begun:
        raise ValueError(not_written(run, unwritable))
    if begun and not run.resume:
        raise ValueError(
            f"{run.directory} holds a run and --resume=false; name another --workdir, remove it, "
            "or start over with --overwrite=all"
        )
    return unwritable


def not_written(run: Run, reason: str) -> str:
    return f"cannot write to {run.directory}: {reason}; name another --workdir"


def finished_summary(checked: Checked, sweep: Sweep | None) -> dict[str, Any]:
    """summary.json of a run that needs nothing written, as all that is asked for is finished.

    Raises:
        ValueError: something is not, or it is of something else.
    """
    run = checked.run
    if text := refusal(run, checked.plans):
        raise ValueError(text)
    summary = written_summary(run) or {}
    points = [point["config"] for point in summary.get("sweep", ())]
    if (
        run.overwrite
        or not all(plan.finished for plan in checked.plans.values())
        or not summary.get("arms", {}).keys() >= set(checked.arms)
        or tuple(summary["seeds"]) != run.seeds
        or changed_evaluations(summary, checked.evaluations)
        or any(dict(point) not in points for point in (sweep.points if sweep else ()))
    ):
        raise ValueError(not_written(run, checked.unwritable))
    return summary


def weights_before(checked: Checked, name: str, done: Done) -> tuple[Params, State] | None:
    """(params, state) of the stage before, on the host; None for a first stage."""
    parent = checked.nodes[name].parent
    return (done.trained[parent].params, done.trained[parent].state) if parent else None


def train_node(
    checked: Checked,
    name: str,
    source: tuple[Params, State] | None,
    done: Done,
    reporter: Reporter,
) -> Trained:
    """Train what one stage of the experiment itself lacks."""
    run, node = checked.run, checked.nodes[name]
    if node.parent and (unused := leftovers(node.setup, checked.nodes[node.parent].setup)):
        logger.info("stage %s does not take from %s: %s", name, node.parent, ", ".join(unused))

    def validation(seeds: tuple[int, ...]) -> Validation | None:
        evaluator = done.evaluator
        if seeds != run.seeds:
            evaluator = make_evaluator(checked.experiment, seeds, run.options)
        return make_validation(checked.experiment, checked.nodes, name, [evaluator], run.options)

    make = functools.partial(over_seeds, node.setup)
    return train_parts(checked.plans[name], make, source, validation, run, reporter, name)
