"""How far the domains are apart in the features of an arm."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.data.streamed import select
from jaxtl.losses import mmd
from jaxtl.measure.results import Comparison, TrainedArm
from jaxtl.models import forward, in_batches
from jaxtl.plan import Analysis, Evaluation, Experiment, Model, Params, PyTree, State, Table
from jaxtl.transferability import proxy_a_distance

EXAMPLES = 1000
BATCH = 200


def domain_gap() -> Analysis:
    """Distances in the features between the evaluations of the sources and the primary one."""
    return Analysis("domain_gap", measure, panels, in_summary=True, in_sweep=False)


def measure(arm: TrainedArm) -> dict[str, np.ndarray]:
    """{"<evaluation>/a_distance", "<evaluation>/mmd": [seeds]} between it and the primary one.

    The proxy A-distance and the unbiased squared MMD with bandwidths of 1/4 to 4 times the mean
    squared distance, of the features of up to 1,000 examples of each. Nothing where either has a
    single example.
    """
    model, gaps = arm.stages[-1].model, {}
    for name, evaluation in source_evaluations(arm.experiment).items():
        if evaluation.head not in model.heads:
            continue
        target = arm.experiment.evals[arm.experiment.primary.evaluation]
        pair = [_inputs(each, arm.seeds) for each in (evaluation, target)]
        if min(jax.tree.leaves(inputs)[0].shape[1] for inputs in pair) < 2:
            continue
        distances = _distances(model, arm.last.params, arm.last.state, pair)
        gaps |= {f"{name}/{key}": np.asarray(v, np.float64) for key, v in distances.items()}
    return gaps


def source_evaluations(experiment: Experiment) -> dict[str, Evaluation]:
    """Evaluations of another domain than the primary one by its head.

    Empty unless a stage of the experiment has domains without labels.
    """
    primary = experiment.primary.evaluation
    stages = [stage for stages in experiment.arms.values() for stage in stages]
    if primary not in experiment.evals or all(d.labelled for s in stages for d in s.domains):
        return {}
    target = experiment.evals[primary]
    return {
        name: evaluation
        for name, evaluation in experiment.evals.items()
        if evaluation.head == target.head and evaluation.dataset != target.dataset
    }


def _inputs(evaluation: Evaluation, seeds: tuple[int, ...]) -> PyTree:
    """Inputs of the first examples, leaves [seeds, n, ...]."""
    table = evaluation.dataset.table()
    rows = [evaluation.dataset.rows(seed)[:EXAMPLES] for seed in seeds]
    fewest = min(map(len, rows))
    chosen = [jax.tree.map(np.asarray, select(table.inputs, each[:fewest])) for each in rows]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *chosen)


@functools.partial(jax.jit, static_argnums=0)
def _distances(model: Model, params: Params, state: State, pair: list[PyTree]) -> PyTree:
    def one_seed(args):
        params, state, pair = args

        def features(inputs: PyTree) -> jax.Array:
            def batch(part: PyTree) -> jax.Array:
                output = forward(model)(params, state, part)["features"]
                return output.reshape(len(output), -1).astype(jnp.float32)

            return in_batches(batch, inputs, BATCH)

        source, target = map(features, pair)
        return {
            "a_distance": proxy_a_distance(source, target),
            "mmd": mmd(source, target, unbiased=True),
        }

    return jax.lax.map(one_seed, (params, state, pair))


def panels(arms: Mapping[str, Mapping[str, np.ndarray]], comparison: Comparison) -> dict:
    note = (
        "Distances in the features at the end of each arm between that evaluation's examples and "
        f"those of {comparison.primary.evaluation}: the proxy A-distance of a linear domain "
        "classifier (0: cannot tell, 2: always can) and the squared MMD. The baseline is "
        f"{comparison.baseline}."
    )
    return {"domain_gap": Table("Distance of the domains", note, arms)}
