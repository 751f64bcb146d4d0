"""Analyses: what a report says of every arm besides its metrics, one question a file.

An experiment asks further ones with `analyses=[*analyses.default(), mine]`, where `mine` is a value
like those here:

    def measure(arm):  # a `jaxtl.measure.TrainedArm`
        return {"steps": np.full(len(arm.seeds), float(arm.stages[-1].num_steps))}

    def panels(arms, comparison):  # what was measured of each arm, a `jaxtl.measure.Comparison`
        rows = {name: {"last stage": measured["steps"]} for name, measured in arms.items()}
        return {"steps": Table("Steps", "How long each arm trains.", rows)}

    mine = Analysis("steps", measure, panels, in_summary=True)
"""

from jaxtl.measure.analyses.adversaries import adversaries
from jaxtl.measure.analyses.classes import classes
from jaxtl.measure.analyses.curves import learning_curves
from jaxtl.measure.analyses.domain_gap import domain_gap
from jaxtl.measure.analyses.features import feature_map
from jaxtl.measure.analyses.forgetting import forgetting
from jaxtl.measure.analyses.picks import oracle, picks
from jaxtl.measure.analyses.relative_gain import relative_gain
from jaxtl.measure.analyses.representation import pretraining, representation
from jaxtl.measure.analyses.task_angles import task_angles
from jaxtl.measure.analyses.task_gains import task_gains
from jaxtl.measure.analyses.task_weights import task_weights
from jaxtl.measure.analyses.tasks import backward_transfer, by_stage, own_stages
from jaxtl.measure.analyses.trade_off import trade_off
from jaxtl.plan import Analysis


def default() -> list[Analysis]:
    """What is asked where an experiment says nothing else, in the order of the report."""
    return [
        picks(),
        oracle(),
        learning_curves(),
        representation(),
        pretraining(),
        classes(),
        adversaries(),
        task_weights(),
        task_angles(),
        domain_gap(),
        feature_map(),
        forgetting(),
        by_stage(),
        own_stages(),
        backward_transfer(),
    ]
