"""What an experiment declares: which way a metric is better, which stage teaches which task."""

from collections.abc import Collection, Iterator

from jaxtl.measure.criteria import PREFIX
from jaxtl.metrics import Derived
from jaxtl.paths import unknown
from jaxtl.plan import Direction, Experiment


def directions(experiment: Experiment) -> dict[str, Direction]:
    """{metric: which way is better}, of those that say so and of the primary one."""
    primary = experiment.primary
    return _declared(experiment) | {primary.metric: primary.direction}


def undeclared(experiment: Experiment) -> list[str]:
    """One line for each evaluation and derived metric that does not say which way is better."""
    consequence = "no gain and no forgetting is shown for {}, except as the primary metric"
    lines = [
        f"evaluation {name!r} declares no directions: " + consequence.format("its metrics")
        for name, evaluation in experiment.evals.items()
        if not evaluation.directions
    ]
    for name, derive in experiment.derived.items():
        if not isinstance(derive, Derived) and name != experiment.primary.metric:
            line = f"derived metric {name!r} is no Derived(function, direction): "
            lines.append(line + consequence.format("it"))
    return lines


def _declared(experiment: Experiment) -> dict[str, Direction]:
    """The directions that those who make the metrics declare; criteria are better when larger."""
    declared = {
        f"{name}/{metric}": direction
        for name, evaluation in experiment.evals.items()
        for metric, direction in evaluation.directions.items()
    }
    derived = experiment.derived.items()
    declared |= {name: value.direction for name, value in derived if isinstance(value, Derived)}
    return declared | {f"{PREFIX}{name}": "max" for name in experiment.criteria}


def declaration_problems(experiment: Experiment, metrics: Collection[str]) -> Iterator[str]:
    """What is wrong with the declared directions and tasks, a line each.

    Args:
        experiment: any.
        metrics: all that its evaluations measure, "<evaluation>/<metric>".
    """
    ways = []
    for name, evaluation in experiment.evals.items():
        measured = [m.removeprefix(f"{name}/") for m in metrics if m.startswith(f"{name}/")]
        for metric, direction in evaluation.directions.items():
            ways.append((f"evaluation {name!r}: metric {metric!r}", direction))
            if metric not in measured:
                yield f"evaluation {name!r}: directions: {unknown('metric', metric, measured)}"
    for name, derive in experiment.derived.items():
        if isinstance(derive, Derived):
            ways.append((f"derived metric {name!r}", derive.direction))
    for what, direction in ways:
        if direction not in ("max", "min"):
            yield f"{what} is better at 'max' or 'min', not {direction!r}"
    known = _declared(experiment)
    for role in ("primary", "select"):
        chosen = getattr(experiment, role)
        declared = known.get(chosen.metric) if chosen else None
        if declared in ("max", "min") and declared != chosen.direction:
            right = {"max": "maximize", "min": "minimize"}[declared]
            better = {"max": "larger", "min": "smaller"}[declared]
            yield (
                f"{role} metric {chosen.metric!r} is better when {better}: {role}="
                f"{right}({chosen.metric!r})"
            )
    stages = {stage.name: stage for chain in experiment.arms.values() for stage in chain}
    for name, stage in stages.items():
        weighted = [d.dataset.name for d in stage.domains if d.example_weights is not None]
        if stage.method.unweighted and weighted:
            yield (
                f"stage {name!r}: its method counts all examples alike, but {', '.join(weighted)} "
                "has example_weights; leave them out or take another method"
            )
        if isinstance(stage.trains, str):
            yield f"stage {name!r}: trains is a list of evaluations, such as [{stage.trains!r}]"
            continue
        for task in stage.trains:
            if task not in experiment.evals:
                yield f"stage {name!r}: trains: {unknown('evaluation', task, experiment.evals)}"
