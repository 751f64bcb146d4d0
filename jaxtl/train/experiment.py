"""Run an experiment: check everything, train each stage once, measure each arm, report."""

import dataclasses
import logging
import math
import os
import platform
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxtl
from jaxtl import report
from jaxtl.plan import Experiment, Stage
from jaxtl.report.evaluate import Evaluator, Measured, features
from jaxtl.report.results import ArmResult, ExperimentResult
from jaxtl.report.verdict import direction
from jaxtl.train.check import Node, check_arms, leaks, plan_stages
from jaxtl.train.identity import Identity, differences, identity, read_json, write_json
from jaxtl.train.loop import Trained, check_directory, train_stage
from jaxtl.train.options import RunOptions
from jaxtl.train.progress import Reporter
from jaxtl.train.setup import leftovers
from jaxtl.train.sharding import check_batch, is_primary, make_mesh, replicated, to_host
from jaxtl.train.source import SourceRun

logger = logging.getLogger(__name__)

PLOTTED_EXAMPLES = 400


@dataclasses.dataclass(frozen=True)
class Run:
    """One invocation.

    Attributes:
        name: the experiment's.
        config: its `Config` as a dict of JSON values.
        experiment_digest: of the experiment file.
        seeds: at least one.
        arms: names to run; empty for all.
        directory: <workdir>/<experiment>.
        options: how to run.
        resume: False refuses a directory that holds a run.
        headline: first line of the experiment's docstring.
    """

    name: str
    config: Mapping[str, Any]
    experiment_digest: str
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    directory: Path
    options: RunOptions
    resume: bool = True
    headline: str = ""


@dataclasses.dataclass(frozen=True)
class Checked:
    """A run that nothing is wrong with.

    Attributes:
        nodes: {stage: Node}, parents first.
        identities: {stage: what its weights depend on}.
        source_run: where source stages are loaded from, if not trained.
        warnings: what is legitimate but should be known.
    """

    experiment: Experiment
    run: Run
    arms: tuple[str, ...]
    nodes: Mapping[str, Node]
    identities: Mapping[str, Identity]
    source_run: SourceRun | None
    warnings: list[str]


def run_experiment(
    experiment: Experiment,
    run: Run,
    reporter: Reporter,
    sweep: Sequence[tuple[Mapping[str, Any], Experiment, Run]] = (),
) -> dict[str, Any]:
    """Train and measure the chosen arms; returns the summary that was written.

    Args:
        experiment, run: what to run and how.
        reporter: says what is going on.
        sweep: ({field: value}, experiment, run) of further points, each with its own directory.

    Raises:
        ValueError: bad input of any kind, before any training.
        Interrupted: a signal stopped a stage; its state is saved.
    """
    mesh = make_mesh(run.options.mesh)
    points = [check(experiment, run)]
    points += [points[0] if r.config == run.config else check(e, r) for _, e, r in sweep]
    for node in (node for point in points for node in point.nodes.values()):
        check_batch(mesh, node.setup.stage.name, node.setup.stage.batch_size)
    for line in dict.fromkeys(line for point in points for line in point.warnings):
        reporter.say(f"[yellow]warning:[/] {line}")
    results: dict[str, dict[str, ArmResult]] = {}
    for point in points:
        key = str(point.run.directory)
        if key not in results:
            if point is not points[0]:
                reporter.say(f"sweep [bold]{point.run.directory.name}[/]")
            with jax.set_mesh(mesh):
                results[key] = train_arms(point, reporter)
    result = ExperimentResult(
        experiment=run.name,
        config=run.config,
        seeds=run.seeds,
        baseline=experiment.baseline,
        selection="last step",
        primary=experiment.primary,
        arms=results[str(run.directory)],
        environment=environment(),
        headline=run.headline,
        sweep=[
            (fields, results[str(point.run.directory)])
            for (fields, _, _), point in zip(sweep, points[1:], strict=True)
        ],
    )
    return report.write(result, run.directory) if is_primary() else report.summarize(result)


def check(experiment: Experiment, run: Run) -> Checked:
    """Look for everything that can be wrong, and take possession of the run's directory.

    Raises:
        ValueError: something is; all of it is listed where possible.
    """
    if not run.seeds:
        raise ValueError("at least one seed is needed, as in --seeds=5")
    arms = run.arms or tuple(experiment.arms)
    check_arms(experiment, arms)
    claim(run)
    nodes = plan_stages(experiment, arms, run.seeds)
    identities = stage_identities(nodes, run)
    for name in nodes:
        check_directory(run.directory / "stages" / name, identities[name])
    source_run = None
    if run.options.source_run:
        source_run = SourceRun(Path(run.options.source_run), run.seeds)
        source_run.check(nodes, experiment, arms)
    return Checked(experiment, run, arms, nodes, identities, source_run, leaks(experiment, nodes))


def train_arms(checked: Checked, reporter: Reporter) -> dict[str, ArmResult]:
    """Train each stage once and measure each arm."""
    experiment, run, nodes = checked.experiment, checked.run, checked.nodes
    write_json(run.directory / "config.json", run_record(run))
    write_json(run.directory / "environment.json", environment())
    evaluator = Evaluator(experiment.evals, run.seeds, run.options.eval_batch, replicated())
    trained: dict[str, Trained] = {}
    measured: dict[str, dict[str, Measured]] = {}
    results = {}
    for arm in checked.arms:
        for stage in experiment.arms[arm]:
            if stage.name in trained:
                continue
            if checked.source_run is not None and stage.name in checked.source_run.stages:
                trained[stage.name] = checked.source_run.load(nodes[stage.name].setup)
                reporter.say(
                    f"stage [bold]{stage.name}[/]: loaded from {checked.source_run.directory}"
                )
            else:
                trained[stage.name] = _train(checked, stage.name, trained, reporter)
            params, state = trained[stage.name].params, trained[stage.name].state
            measured[stage.name] = evaluator.measure(
                stage.model, stage.method, params, state, named_heads(nodes, stage.name)
            )
        results[arm] = arm_result(arm, experiment, trained, measured, run.seeds)
    return results


def claim(run: Run) -> None:
    """Make the run's directory, or check that it may be gone on with.

    Raises:
        ValueError: it cannot be written, or holds a run with other settings.
    """
    try:
        run.directory.mkdir(parents=True, exist_ok=True)
        probe = run.directory / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"cannot write to {run.directory}: {error.strerror}; name another --workdir"
        ) from error
    before = read_json(run.directory / "config.json")
    if before is None:
        return
    if not run.resume:
        raise ValueError(
            f"{run.directory} holds a run and --resume=false; name another --workdir or remove it"
        )
    if lines := differences(before, run_record(run)):
        raise ValueError(
            f"{run.directory} holds a run with other settings:\n  "
            + "\n  ".join(lines)
            + "\nName another --workdir, or remove that one."
        )


def run_record(run: Run) -> dict[str, Any]:
    """config.json: what all arms of a directory share."""
    return {"experiment": run.name, "config": dict(run.config), "seeds": list(run.seeds)}


def stage_identities(nodes: Mapping[str, Node], run: Run) -> dict[str, Identity]:
    """{stage: its identity}; parents stand before their children in `nodes`."""
    identities: dict[str, Identity] = {}
    for name, node in nodes.items():
        identities[name] = identity(
            name,
            run.config,
            run.seeds,
            run.experiment_digest,
            run.options.source_run,
            identities[node.parent] if node.parent else None,
        )
    return identities


def _train(
    checked: Checked, name: str, trained: Mapping[str, Trained], reporter: Reporter
) -> Trained:
    run, node = checked.run, checked.nodes[name]
    source = None
    if node.parent:
        source = trained[node.parent].params, trained[node.parent].state
        if unused := leftovers(node.setup, checked.nodes[node.parent].setup):
            logger.info("stage %s leaves in the checkpoint: %s", name, ", ".join(unused))
    num_steps, (count, total) = node.setup.stage.num_steps, node.setup.sizes
    notes = [f"{count:,} of {total:,} trained"]
    with reporter.stage(name, num_steps, notes) as show:
        result = train_stage(
            node.setup,
            run.seeds,
            source,
            run.directory / "stages" / name,
            checked.identities[name],
            run.options,
            show,
        )
        notes.append(result.note)
    return result


def arm_result(
    arm: str,
    experiment: Experiment,
    trained: Mapping[str, Trained],
    measured: Mapping[str, Mapping[str, Measured]],
    seeds: tuple[int, ...],
) -> ArmResult:
    """What one arm measured; NaN for a seed that failed in one of its stages."""
    stages = experiment.arms[arm]
    last = trained[stages[-1].name]
    at_end = measured[stages[-1].name]
    failures = {
        seed: (stage.name, step)
        for stage in reversed(stages)
        for seed, step in trained[stage.name].failed.items()
    }
    metrics = flat_metrics(at_end)
    for name, derive in experiment.derived.items():
        metrics[name] = np.array(
            [
                derive(defaultdict(lambda: math.nan, {k: float(v[i]) for k, v in metrics.items()}))
                for i in range(len(seeds))
            ]
        )
    failed = [seed in failures for seed in seeds]
    lost = forgetting(stages, experiment, measured)
    metrics, lost = (
        {name: np.where(failed, np.nan, values) for name, values in table.items()}
        for table in (metrics, lost)
    )
    seconds = sum(trained[stage.name].seconds for stage in stages)
    rate = last.steps_per_second
    count, total = last.setup.sizes
    return ArmResult(
        name=arm,
        stages=tuple(stage.name for stage in stages),
        metrics=metrics,
        forgetting=lost,
        trainable_parameters=count,
        total_parameters=total,
        failures=failures,
        train_seconds=seconds,
        steps_per_second=rate if math.isfinite(rate) else None,
        curves={stage.name: trained[stage.name].curves for stage in stages},
        confusion={k: m.confusion for k, m in at_end.items() if m.confusion is not None},
        class_names={
            name: experiment.evals[name].dataset.class_names(experiment.evals[name].column)
            for name, m in at_end.items()
            if m.confusion is not None
        },
        features=plotted_features(stages[-1], last, experiment),
    )


def named_heads(nodes: Mapping[str, Node], stage: str | None) -> set[str]:
    """Heads that a domain of the stage, or of one before it, names; the others are random."""
    heads: set[str] = set()
    while stage is not None:
        heads |= {h for domain in nodes[stage].setup.stage.domains for h in domain.heads}
        stage = nodes[stage].parent
    return heads


def flat_metrics(measured: Mapping[str, Measured]) -> dict[str, np.ndarray]:
    """{"<evaluation>/<metric>": [seeds]}."""
    return {f"{name}/{k}": v for name, m in measured.items() for k, v in m.metrics.items()}


def forgetting(
    stages: Sequence[Stage],
    experiment: Experiment,
    measured: Mapping[str, Mapping[str, Measured]],
) -> dict[str, np.ndarray]:
    """{metric: [seeds]}, how much worse each is at the end of an arm than after its first stage.

    A source evaluation is one that is not the primary's and whose head the first stage trains.
    """
    if len(stages) < 2:
        return {}
    heads = {head for domain in stages[0].domains if domain.labelled for head in domain.heads}
    primary = experiment.primary.metric.split("/")[0]
    before, after = measured[stages[0].name], measured[stages[-1].name]
    lost = {}
    for name in before.keys() & after.keys():
        if name != primary and experiment.evals[name].head in heads:
            for metric, value in before[name].metrics.items():
                sign = 1 if direction(metric) == "max" else -1
                lost[f"{name}/{metric}"] = sign * (value - after[name].metrics[metric])
    return dict(sorted(lost.items()))


def plotted_features(stage: Stage, trained: Trained, experiment: Experiment) -> dict[str, tuple]:
    """{evaluation: (features, labels)} of the first seed and the first examples, classes only."""
    params, state = jax.tree.map(lambda leaf: leaf[0], to_host((trained.params, trained.state)))
    views = {}
    for name, evaluation in experiment.evals.items():
        if (
            evaluation.head not in stage.model.heads
            or not stage.model.heads[evaluation.head].integer
        ):
            continue
        table = evaluation.dataset.table()
        rows = evaluation.dataset.rows(0)[:PLOTTED_EXAMPLES]
        inputs = jax.tree.map(lambda x, rows=rows: x[rows], table.inputs)
        views[name] = (
            features(stage.model, params, state, inputs, PLOTTED_EXAMPLES),
            table.labels[evaluation.column][rows],
        )
    return views


def environment() -> dict[str, Any]:
    """Versions, devices, git commit and command."""
    import flax
    import optax

    def git(*args: str) -> str | None:
        done = subprocess.run(["git", *args], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except OSError:
        commit, changed = None, None
    return {
        "command": " ".join(sys.argv),
        "jaxtl": jaxtl.__version__,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "flax": flax.__version__,
        "optax": optax.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "devices": [str(device.device_kind) for device in jax.devices()],
        "git_commit": commit and commit + (" with local changes" if changed else ""),
    }
