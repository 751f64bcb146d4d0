"""How far the gradients of several tasks agreed, step by step, where a rule combined them."""

import re
from collections.abc import Mapping

from jaxtl.measure.analyses.curves import Curves, chain_lines
from jaxtl.measure.analyses.task_weights import side_by_side, task_losses_logged
from jaxtl.measure.results import Comparison, TrainedArm
from jaxtl.plan import Analysis, Curve, Panel

PAIR = re.compile(r"cosine_(\d+)_(\d+)")
CONFLICTS, MEAN = "share of pairs in conflict", "cosine, mean of pairs"


def task_angles() -> Analysis:
    """Cosines of the tasks' gradients, and the share of pairs that conflict, by step."""
    return Analysis("task_angles", measure, panels)


def measure(arm: TrainedArm) -> Curves | None:
    """{stage: {"step": [t], quantity: [t, seeds]}} of stages that log them."""
    curves = {}
    for stage in arm.stages:
        logged = arm.trained[stage.name].curves
        if not {"conflicts", "cosine"} <= logged.keys():
            continue
        pairs = {key: PAIR.fullmatch(key) for key in logged if PAIR.fullmatch(key)}
        shown = {CONFLICTS: logged["conflicts"], MEAN: logged["cosine"]}
        count = 1 + max((int(match[2]) for match in pairs.values()), default=0)
        tasks = list(task_losses_logged(stage, count, logged))
        for key, match in pairs.items():
            first, second = (tasks[int(number)] for number in match.groups())
            shown[f"cosine, {first} and {second}"] = logged[key]
        curves[stage.name] = {"step": logged["step"], **shown}
    return curves or None


def panels(arms: Mapping[str, Curves], comparison: Comparison) -> dict[str, Panel]:
    keys = dict.fromkeys(key for arm in arms.values() for curves in arm.values() for key in curves)
    note = (
        "Moving averages of what the gradients of the losses did in what the tasks share: a pair "
        "conflicts where its cosine is below 0."
    )
    metrics = [key for key in keys if key != "step"]
    lines = side_by_side(chain_lines(arms, comparison, metrics))
    return {"task_angles": Curve("Do the tasks agree?", note, lines, "step", limits=(-1, 1))}
