"""A sweep: the points of an experiment over fields of its Config, in as few programs as possible.

A stage that the swept fields do not change is trained once, with the experiment itself. Fields that
a stage reads as arrays (learning rates, lambdas, weight decay) are an axis of its program: points
and seeds are replicas of one compilation. Fields that decide something else (a shape, a branch,
which data) give a program for each of their values.
"""

import dataclasses
import glob
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxtl.measure.outcome import arm_result
from jaxtl.measure.results import ArmResult
from jaxtl.models import computing_in
from jaxtl.study.checks.experiments import check_arms, plan_stages, warnings
from jaxtl.study.checks.held_out import check_held_out
from jaxtl.study.checks.label_space import match_classes
from jaxtl.study.continuation import continuation, starts_over, train_parts
from jaxtl.study.progress import Reporter
from jaxtl.study.run import Checked, Continuation, Done, Rows, Run, numbers_settings
from jaxtl.study.same import (
    same_evaluations,
    same_outputs,
    same_selection,
    same_training,
)
from jaxtl.study.traced import Point, Sweep, Values, group_points, group_replicas, label
from jaxtl.study.validation import (
    block_at_end,
    make_evaluator,
    make_validation,
    named_heads,
    validation_identity,
)
from jaxtl.train.mesh import check_batch, current_mesh
from jaxtl.train.rehearsal import rehearse
from jaxtl.train.resolve.replicas import Replicas
from jaxtl.train.resolve.stage import Setup
from jaxtl.train.state import Validation
from jaxtl.train.store.blocks import Trained, blocks_of, join_weights
from jaxtl.train.store.identity import stage_identity


class Program(NamedTuple):
    """A training of one stage for some of the points.

    Attributes:
        points: their numbers; one for a stage that is trained apart.
        make: seeds -> replicas, point after point.
        plan: what is done of it.
    """

    points: Sequence[int]
    make: Callable[[Rows], Replicas]
    plan: Continuation


class Plan(NamedTuple):
    """A sweep that nothing is wrong with.

    Attributes:
        points: those to train, in the order of the sweep.
        programs: {stage: its programs}, parents first; none for a stage that every point takes
            from the experiment as it is.
        why: {stage: why not all points share a program}.
        shared: whether one evaluator serves all points: they measure the same examples by the same
            sums, and nothing is scored by criteria.
        measured: whether all make the same metrics of the same sums.
        predictors: {stage: [a resolved stage that predicts like that of the point]}, one for all
            that predict alike, so that their evaluation is compiled once.
        warnings: what is legitimate but should be known.
    """

    sweep: Sweep
    points: Sequence[Point]
    programs: Mapping[str, Sequence[Program]]
    why: Mapping[str, str]
    shared: bool
    measured: bool
    predictors: Mapping[str, Sequence[Setup]]
    warnings: Sequence[str]

    @property
    def plans(self) -> dict[str, Continuation]:
        """{stage at some points: what is done of it}."""
        return {
            f"{name} at {label([self.points[i].values for i in program.points])}": program.plan
            for name, programs in self.programs.items()
            for program in programs
        }

    def __str__(self) -> str:
        """`pretrain as it is; full, scratch in one program; ridge in 3 programs as ...`."""
        ways: dict[str, list[str]] = {}
        for name, programs in self.programs.items():
            count = len(programs)
            way = ("as it is", "in one program")[count] if count < 2 else f"in {count} programs"
            if count > 1:
                way += f" as {self.why[name] or 'some points were trained before'}"
            ways.setdefault(way, []).append(name)
        return "; ".join(f"{', '.join(names)} {way}" for way, names in ways.items())


def plan_sweep(main: Checked, sweep: Sweep) -> Plan:
    """Check the points, and find out which stages can share a program.

    Raises:
        ValueError: something is wrong with a point, which is named, or a directory holds another
            sweep.
    """
    each = zip(sweep.points, sweep.configs, strict=True)
    points = [_check_point(main, sweep, *point) for point in each if point[1] != main.run.config]
    if not points:
        return Plan(sweep, (), {}, {}, True, True, {}, ())
    seeds, loaded = main.run.seeds, main.source_run.stages if main.source_run else ()
    first, planned = (main.experiment, main.nodes), [(p.experiment, p.nodes) for p in points]
    alike = [same_evaluations(first, each, seeds) for each in planned]
    shared, measured = (all(each[i] for each in alike) for i in (0, 1))
    scored = any(experiment.criteria for experiment, _ in (first, *planned))
    programs: dict[str, list[Program]] = {}
    why: dict[str, str] = {}
    for name, node in main.nodes.items():
        parents = programs.get(node.parent, [])
        once = not parents and all(same_selection(first, each, name, seeds) for each in planned)
        setups = [point.nodes[name].setup for point in points]
        if name in loaded:
            for point in points:
                place = f"sweep, {label([point.values])}"
                main.source_run.check_point(name, node.setup, point.nodes[name].setup, place)
        if name in loaded or (once and same_training(node.setup, setups, seeds)):
            programs[name] = []
            continue
        groups, why[name] = group_points(name, points, sweep, seeds)
        groups = [part for group in groups for part in _apart(name, group, points, main.run)]
        programs[name] = [
            _make_program(name, main, points, group, parents, sweep) for group in groups
        ]
    lines = [line for point in points for line in warnings(point.experiment, point.nodes)]
    predictors = {name: _predictors(name, main, points) for name in main.nodes}
    return Plan(sweep, points, programs, why, shared and not scored, measured, predictors, lines)


def _predictors(name: str, main: Checked, points: Sequence[Point]) -> list[Setup]:
    """For each point a stage that predicts like its own, that of the experiment if it does."""
    distinct, chosen = [main.nodes[name].setup], []
    for point in points:
        setup = point.nodes[name].setup
        alike = next((other for other in distinct if same_outputs(other, setup)), None)
        if alike is None:
            distinct.append(alike := setup)
        chosen.append(alike)
    return chosen


def _check_point(main: Checked, sweep: Sweep, values: Values, config: Mapping[str, Any]) -> Point:
    """Build a point; raises ValueError if something is wrong with it, which names it."""
    try:
        experiment = computing_in(sweep.build(values), main.run.options.dtype)
        experiment, _ = match_classes(experiment)
        check_arms(experiment, main.arms)
        nodes = plan_stages(experiment, main.arms, main.run.seeds, rehearsed=False)
        check_held_out(experiment, nodes, config)
        for name, node in nodes.items():
            check_batch(current_mesh(), name, node.setup.stage.batch_size)
        if nodes.keys() != main.nodes.keys():
            raise ValueError(
                f"its stages are called {', '.join(nodes)}, those of the experiment "
                f"{', '.join(main.nodes)}; their names must not depend on what is swept"
            )
        for name, node in nodes.items():
            if node.parent != (before := main.nodes[name].parent):
                raise ValueError(
                    f"stage {name!r} follows {_stage(node.parent)}, in the experiment "
                    f"{_stage(before)}; the order of stages must not depend on what is swept"
                )
    except ValueError as error:
        raise ValueError(f"sweep, {label([values])}: {error}") from error
    if main.source_run is not None:
        nodes = main.source_run.as_loaded(nodes)
    return Point(values, experiment, nodes)


def _stage(name: str | None) -> str:
    return "no stage" if name is None else f"stage {name!r}"


def _apart(
    name: str, group: Sequence[int], points: Sequence[Point], run: Run
) -> list[Sequence[int]]:
    """The points of a group that began to train together before, and the rest of it.

    Whether they are still the same is asked later, as of every stage.
    """
    parts, rest = [], list(group)
    for folder in sorted((run.directory / "sweep").glob(f"*/stages/{glob.escape(name)}")):
        blocks = blocks_of(folder)
        swept = blocks[0].record.get("swept", []) if blocks else []
        places = [i for i in rest if _json(points[i].values) in swept]
        if swept and len(places) == len(swept):
            parts.append(places)
            rest = [i for i in rest if i not in places]
    return [*parts, rest] if rest else parts


def _json(values: Values) -> dict[str, Any]:
    return json.loads(json.dumps(dict(values), default=str))


def _make_program(
    name: str,
    main: Checked,
    points: Sequence[Point],
    chosen: Sequence[int],
    parents: Sequence[Program],
    sweep: Sweep,
) -> Program:
    """Resolve what some points of a stage share.

    Raises:
        ValueError: it does not fit the step, or its directory holds another program.
    """
    run, parent = main.run, main.nodes[name].parent
    group = [points[i] for i in chosen]
    arm = next(a for a in main.arms if name in {s.name for s in main.experiment.arms[a]})
    whole = group_replicas(name, group, sweep, run.seeds)
    rehearse(whole, arm)

    def make(seeds: Rows) -> Replicas:
        replicas = group_replicas(name, group, sweep, seeds)
        return dataclasses.replace(replicas, rebuild=whole.rebuild)  # by which it was traced

    origins = [p.plan.identity for p in parents if set(p.points) & set(chosen)]
    origins = origins or ([main.plans[parent].identity] if parent else [])
    directory = run.directory / "sweep" / label([p.values for p in group]) / "stages" / name
    identity = stage_identity(
        make(run.seeds),
        origins,
        validation_identity([(p.experiment, p.nodes) for p in group], name, run.seeds),
        numbers_settings(run),
        run.experiment_digest,
    )
    plan = continuation(directory, identity, run, starts_over(run, main.nodes, name))
    return Program(chosen, make, plan._replace(swept=[_json(p.values) for p in group]))


def train_sweep(
    main: Checked, plan: Plan, done: Done, reporter: Reporter
) -> list[tuple[Values, dict[str, ArmResult]]]:
    """({field: value}, {arm: ArmResult}) of each point, the experiment itself among them."""
    run, points = main.run, plan.points
    if points:
        fields = ", ".join(points[0].values)
        reporter.say(
            "sweep over ",
            (fields, "bold"),
            f", {len(points)} more point{'s' * (len(points) > 1)}. {plan}",
        )
    runs: list[tuple[Point, Done]] = []
    for point in points:
        if plan.shared:
            evaluator = done.evaluator.like(point.experiment.evals)
        else:
            evaluator = make_evaluator(point.experiment, run.seeds, run.options)
        runs.append((point, Done(evaluator, {}, {}, {}, {})))
    for name, programs in plan.programs.items():

        def measure(place: int, trained: Trained, name: str = name) -> None:
            (point, outcome), setup = runs[place], plan.predictors[name][place]
            outcome.cuts[name] = block = block_at_end(point.nodes, name, run.options)
            what = setup.stage.model, setup.stage.method, trained.params, trained.state
            heads = named_heads(point.nodes, name)
            outcome.measured[name] = outcome.evaluator.measure(*what, heads, block)

        for program in programs:
            _train(name, main, program, [runs[i] for i in program.points], measure, reporter)
        if not programs:
            _take_over(name, main, done, runs, plan, measure)
    for point, (_, trained, measured, results, cuts) in runs:
        for arm in main.arms:
            results[arm] = arm_result(
                arm, point.experiment, trained, measured, run.seeds, cuts, in_sweep=True
            )
    results_of_points = iter(outcome.results for _, outcome in runs)
    return [
        (values, done.results if config == run.config else next(results_of_points))
        for values, config in zip(plan.sweep.points, plan.sweep.configs, strict=True)
    ]


def _train(
    name: str,
    main: Checked,
    program: Program,
    runs: Sequence[tuple[Point, Done]],
    measure: Callable[[int, Trained], None],
    reporter: Reporter,
) -> None:
    """Run one program of some points, and measure each.

    Args:
        runs: of these points.
        measure: number of a point, what was trained of it.
    """
    parent, source = main.nodes[name].parent, None
    if parent:
        source = join_weights([outcome.trained[parent] for _, outcome in runs])
    first = runs[0][0]

    def validation(seeds: Rows) -> Validation | None:
        evaluators = [
            outcome.evaluator
            if seeds == main.run.seeds
            else make_evaluator(point.experiment, seeds, main.run.options)
            for point, outcome in runs
        ]
        return make_validation(first.experiment, first.nodes, name, evaluators, main.run.options)

    title = f"{name} at {label([point.values for point, _ in runs])}"
    whole = train_parts(program.plan, program.make, source, validation, main.run, reporter, title)
    size, on_host = len(main.run.seeds), whole.on_host(source)
    for k, (point, (_, outcome)) in enumerate(zip(program.points, runs, strict=True)):
        rows = range(k * size, (k + 1) * size)
        measure(point, whole.part(rows))
        outcome.trained[name] = on_host.part(rows)


def _take_over(
    name: str,
    main: Checked,
    done: Done,
    runs: Sequence[tuple[Point, Done]],
    plan: Plan,
    measure: Callable[[int, Trained], None],
) -> None:
    """Give every point what the experiment itself has trained; measure it where it must be."""
    anew = []
    for place, ((_, outcome), setup) in enumerate(zip(runs, plan.predictors[name], strict=True)):
        outcome.trained[name] = done.trained[name]
        if plan.measured and setup is main.nodes[name].setup:
            outcome.measured[name] = done.measured[name]
        else:
            anew.append(place)
    trained = done.trained[name].on_devices() if anew else None
    for place in anew:
        measure(place, trained)
