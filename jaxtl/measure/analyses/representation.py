"""What the features of a stage without labels are worth before any head reads them."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.data.streamed import select
from jaxtl.measure.analyses.curves import Curves, chain_lines
from jaxtl.measure.results import Comparison, TrainedArm
from jaxtl.models import outputs
from jaxtl.plan import CRITERIA, Analysis, Curve, Evaluation, Panel, Stage, Table, key_parts
from jaxtl.train.mesh import to_host
from jaxtl.train.resolve.replicas import replica
from jaxtl.transferability import effective_rank, neighbour_accuracy, probe_accuracy

EXAMPLES = 1000
COLLAPSED = 1.5
"""Features of a lower effective rank than this are one direction and noise."""
RANK, NEIGHBOURS, PROBE = "effective rank", "nearest neighbours", "linear probe"


def representation() -> Analysis:
    """Effective rank, neighbours and a linear probe of the features of stages without labels."""
    return Analysis("representation", measure, panels, in_summary=True, in_sweep=False)


def pretraining() -> Analysis:
    """The criteria by step while stages without labels trained, if the experiment has any."""
    return Analysis("pretraining", measure_curves, curve_panels)


def blind_stages(arm: TrainedArm) -> list[Stage]:
    """Those whose domains name no head, which have trained something."""
    return [s for s in arm.stages if s.num_steps and not any(d.heads for d in s.domains)]


def measure(arm: TrainedArm) -> dict[str, np.ndarray]:
    """{"<stage>/<evaluation>/<effective rank, nearest neighbours or linear probe>": [seeds]}.

    Of up to 1,000 examples of each evaluation of classes; each is left out when its neighbours
    vote, or when the probe is fitted. Of other evaluations the rank alone.
    """
    values = {}
    for stage in blind_stages(arm):
        trained = arm.trained[stage.name]
        trees = to_host((trained.params, trained.state))
        for name, evaluation in arm.experiment.evals.items():
            if evaluation.head not in stage.model.heads:
                continue
            each = [
                _measure_seed(stage, evaluation, seed, *replica(trees, i))
                for i, seed in enumerate(arm.seeds)
            ]
            values |= {
                f"{stage.name}/{name}/{what}": np.array([seed[what] for seed in each], np.float64)
                for what in each[0]
            }
    return values


def _measure_seed(stage: Stage, evaluation: Evaluation, seed: int, params, state):
    table, rows = evaluation.dataset.table(), evaluation.dataset.rows(seed)[:EXAMPLES]
    inputs, head = select(table.inputs, rows), stage.model.heads[evaluation.head]
    features = outputs(stage.model, params, state, inputs, "features", predict=stage.method.predict)
    features = jnp.asarray(features.reshape(len(rows), -1), jnp.float32)
    measured = {RANK: jax.jit(effective_rank)(features)}
    if head.integer and not head.label_shape:
        labels = jnp.asarray(table.labels_of(evaluation.column, head)[0][rows])
        measured[NEIGHBOURS] = jax.jit(neighbour_accuracy)(features, labels)
        measured[PROBE] = jax.jit(probe_accuracy, static_argnums=2)(features, labels, head.size)
    return measured


def panels(arms: Mapping[str, Mapping[str, np.ndarray]], comparison: Comparison) -> dict:
    rows: dict[str, dict[str, np.ndarray]] = {}
    for values in arms.values():  # arms share these stages
        for key, of_seeds in values.items():
            stage, evaluation, what = key.rsplit("/", 2)
            rows.setdefault(stage, {})[f"{what}, {evaluation}"] = of_seeds
    if not rows:
        return {}
    note = (
        "After each stage without labels: the effective rank of the features, about how many "
        "directions they use, and how often the vote of an example's nearest neighbours, or a "
        "linear head fitted to all other examples, is right. "
    )
    collapsed = [stage for stage, columns in rows.items() if has_collapsed(columns)]
    note += (
        f"The features of {', '.join(collapsed)} have collapsed: they are nearly the same for "
        "every example."
        if collapsed
        else "None has collapsed (a rank near 1)."
    )
    return {"representation": Table("Features without labels", note, rows, corner="stage")}


def has_collapsed(columns: Mapping[str, np.ndarray]) -> bool:
    """Whether the features of any seed have a rank near 1 on some evaluation."""
    ranks = [np.asarray(v) for name, v in columns.items() if name.startswith(RANK)]
    return any(bool(np.any(rank < COLLAPSED)) for rank in ranks)


def measure_curves(arm: TrainedArm) -> Curves | None:
    """Of the stages without labels alone."""
    curves = {}
    for stage in blind_stages(arm):
        logged = arm.trained[stage.name].curves
        keys = [key for key in logged if key_parts(key)[0] == CRITERIA]
        if keys:
            curves[stage.name] = {key: logged[key] for key in ("step", *keys)}
    return curves or None


def curve_panels(arms: Mapping[str, Curves], comparison: Comparison) -> dict[str, Panel]:
    curves = [logged for stages in arms.values() for logged in stages.values()]
    keys = dict.fromkeys(key for logged in curves for key in logged if key != "step")
    lines = chain_lines(arms, comparison, list(keys))
    note = "What the criteria say of the features by step, while nothing had a label."
    return {"pretraining": Curve("While it pretrains", note, lines, x_label="step")}
