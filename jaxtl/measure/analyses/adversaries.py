"""How domain classifiers fared while the features learned to fool them."""

from collections.abc import Mapping

from jaxtl.measure.analyses.curves import ADVERSARIAL, Curves, chain_lines
from jaxtl.measure.results import Comparison, TrainedArm
from jaxtl.plan import Analysis, Curve, Panel


def adversaries() -> Analysis:
    """Accuracy of the domain classifiers and coefficient of the gradient reversal by step."""
    return Analysis("adversaries", measure, panels)


def measure(arm: TrainedArm) -> Curves | None:
    """Of arms with a stage that logs the accuracy of a domain classifier."""
    curves = {stage.name: arm.trained[stage.name].curves for stage in arm.stages}
    if not any(ADVERSARIAL[0] in logged for logged in curves.values()):
        return None
    return {
        stage: {key: logged[key] for key in ("step", *ADVERSARIAL) if key in logged}
        for stage, logged in curves.items()
    }


def panels(arms: Mapping[str, Curves], comparison: Comparison) -> dict[str, Panel]:
    note = "Domain classifiers: accuracy (0.5 of two domains: fooled) and gradient reversal."
    lines = chain_lines(arms, comparison, ADVERSARIAL)
    return {"adversaries": Curve("Adaptation", note, lines, x_label="step")} if lines else {}
