"""Arms and points of earlier launches in the same directory: whether they are still what they were.

They stand beside those of this launch in its report only if this launch would measure the same.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtl.files import digest
from jaxtl.study.checks.experiments import plan_stages
from jaxtl.study.continuation import plan_going_on
from jaxtl.study.run import Checked
from jaxtl.train.store.identity import versions

REMEDY = "run it again beside the others"


class Earlier(NamedTuple):
    """What an earlier launch left in the summary.

    Attributes:
        arms: {arm: why it counts no longer}, of those that this launch does not run; empty where
            it does count.
        points: why no point of a sweep counts that this launch does not run, empty if all do.
        changed: the evaluations that read other data than then, or measure something else.
    """

    arms: Mapping[str, str]
    points: str
    changed: list[str]

    def outdated(self, arm: str, point: Mapping[str, Any]) -> str:
        """Why an arm (at a point) that this launch does not run counts no longer, in words."""
        if point:
            return self.points
        return self.arms.get(arm, "")


def earlier(checked: Checked, summary: Mapping[str, Any] | None) -> Earlier:
    """What counts of the summary that the directory holds, None if it holds none."""
    if summary is None:
        return Earlier({}, "", [])
    run = checked.run
    changed = changed_evaluations(summary, checked.evaluations)
    others = [arm for arm in summary["arms"] if arm not in checked.arms]
    if changed:
        reason = f"it was measured by other evaluations ({', '.join(changed)}); {REMEDY}"
        return Earlier(dict.fromkeys(others, reason), reason, changed)
    points = ""
    if run.overwrite or summary.get("made_from") != made_from(checked):
        points = f"the experiment has changed since; {REMEDY}"
    same_seeds = tuple(summary["seeds"]) == run.seeds
    arms = {arm: _why_outdated(checked, arm) if same_seeds else "" for arm in others}
    return Earlier(arms, points, [])


def changed_evaluations(summary: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the evaluations that measured something else when the summary was written.

    Args:
        now: as `evaluation_digests`.
    """
    changed, before = [], summary.get("evaluations", {})
    for name in {**before, **now}:
        if name not in before or name not in now:
            changed.append(name)
            continue
        old, new = before[name], now[name]
        common = old["seeds"].keys() & new["seeds"].keys()
        data_differ = any(old["seeds"][seed] != new["seeds"][seed] for seed in common)
        if old["program"] != new["program"] or data_differ:
            changed.append(name)
    return changed


def made_from(checked: Checked) -> str:
    """Says which experiment the points of a sweep belong to."""
    run = checked.run
    return digest([run.experiment_digest, dict(run.config), versions()])


def _why_outdated(checked: Checked, arm: str) -> str:
    """Why an arm would not have the results that it has in the summary, empty if it would."""
    experiment, run = checked.experiment, checked.run
    if arm not in experiment.arms:
        return "the experiment has no such arm any more"
    try:
        nodes = plan_stages(experiment, [arm], run.seeds)
    except ValueError as error:
        return f"it does not run any more: {str(error).splitlines()[0]}"
    plans = plan_going_on(experiment, nodes, run, checked.source_run)
    if any(plan.overwrite for plan in plans.values()):
        return f"a stage of it starts over; {REMEDY}"
    for name, plan in plans.items():
        if plan.problems:
            return f"stage {name!r} has changed ({plan.problems[0]}); {REMEDY}"
        if not plan.finished:
            return f"stage {name!r} is not there any more; {REMEDY}"
    return ""
