"""Computing in a narrower type than the parameters are kept in."""

import dataclasses

from jaxtl.plan import Experiment, Model, Stage


def computing_in(experiment: Experiment, dtype: str) -> Experiment:
    """The experiment with all its models computing in a type; unchanged for float32."""
    if dtype == "float32":
        return experiment
    models: dict[int, Model] = {}

    def narrow(stage: Stage) -> Stage:
        model = models.setdefault(id(stage.model), dataclasses.replace(stage.model, dtype=dtype))
        return dataclasses.replace(stage, model=model)

    arms = {name: [narrow(stage) for stage in stages] for name, stages in experiment.arms.items()}
    return dataclasses.replace(experiment, arms=arms)
