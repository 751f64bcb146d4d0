"""How far the domains are apart in the features of an arm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.data import to_float
from jaxtl.data.streamed import select
from jaxtl.losses import mmd
from jaxtl.measure.criteria import in_batches
from jaxtl.plan import Evaluation, Experiment, Model, Params, PyTree, Stage, State
from jaxtl.train.loop import Trained
from jaxtl.transferability import proxy_a_distance

EXAMPLES = 1000
BATCH = 200


def others(experiment: Experiment) -> dict[str, Evaluation]:
    """Evaluations of another domain than the primary one by its head: those of the sources.

    Empty unless a stage of the experiment has domains without labels.
    """
    primary = experiment.primary.metric.partition("/")[0]
    stages = [stage for stages in experiment.arms.values() for stage in stages]
    if primary not in experiment.evals or all(d.labelled for s in stages for d in s.domains):
        return {}
    target = experiment.evals[primary]
    return {
        name: evaluation
        for name, evaluation in experiment.evals.items()
        if evaluation.head == target.head and evaluation.dataset != target.dataset
    }


def domain_gap(
    stage: Stage, trained: Trained, experiment: Experiment, seeds: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """{"<evaluation>/a_distance", "<evaluation>/mmd": [seeds]} between it and the primary one.

    The proxy A-distance and the unbiased squared MMD with bandwidths of 1/4 to 4 times the mean
    squared distance, of the features of up to 1,000 examples of each. Nothing where either has a
    single example.
    """
    found = {}
    for name, evaluation in others(experiment).items():
        target = experiment.evals[experiment.primary.metric.partition("/")[0]]
        if evaluation.head not in stage.model.heads:
            continue
        pairs = [_inputs(one, seeds) for one in (evaluation, target)]
        if min(jax.tree.leaves(inputs)[0].shape[1] for inputs in pairs) < 2:
            continue
        measure = jax.jit(functools.partial(_distances, stage.model))
        distances = measure(trained.params, trained.state, pairs)
        found |= {f"{name}/{k}": np.asarray(v, np.float64) for k, v in distances.items()}
    return found


def _inputs(evaluation: Evaluation, seeds: tuple[int, ...]) -> PyTree:
    """Inputs of the first examples, leaves [seeds, n, ...]."""
    table = evaluation.dataset.table()
    rows = [evaluation.dataset.rows(seed)[:EXAMPLES] for seed in seeds]
    rows = [own[: min(map(len, rows))] for own in rows]
    chosen = [jax.tree.map(np.asarray, select(table.inputs, own)) for own in rows]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *chosen)


def _distances(model: Model, params: Params, state: State, pairs: list[PyTree]) -> PyTree:
    def one_seed(args):
        params, state, pairs = args

        def features(inputs: PyTree) -> jax.Array:
            def batch(part: PyTree) -> jax.Array:
                found = model.apply(params, state.statistics, to_float(part))[0]["features"]
                return found.reshape(len(found), -1).astype(jnp.float32)

            return in_batches(batch, inputs, BATCH)

        source, target = map(features, pairs)
        return {
            "a_distance": proxy_a_distance(source, target),
            "mmd": mmd(source, target, unbiased=True),
        }

    return jax.lax.map(one_seed, (params, state, pairs))
