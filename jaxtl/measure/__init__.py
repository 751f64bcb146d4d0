"""What finished stages are worth: metrics, verdicts, and the analyses of an experiment.

An analysis is given each `TrainedArm`, and then the `Comparison` of all arms to make panels of.
"""

from jaxtl.measure.results import ArmResult, Comparison, ExperimentResult, TrainedArm
