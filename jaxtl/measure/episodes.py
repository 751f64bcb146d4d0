"""Held-out episodes: the same for every arm of a seed, answered by a learner."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.measure.examples import Batch, Examples
from jaxtl.models import episode_logits, fixed_block, to_float
from jaxtl.models.outputs import batch_outputs, row_shapes
from jaxtl.models.programs import Form, alone, contains, form_of
from jaxtl.paths import flatten, select
from jaxtl.plan import Evaluation, Learner, Method, Model, Params, PyTree, State, make_batch
from jaxtl.train.feed.episodes import PADDING, EpisodeOrder, groups_of

EVALUATION = 1
"""Episodes that are measured are drawn from other numbers than those of training."""


def learner_of(evaluation: Evaluation, method: Method) -> Learner | None:
    """Who answers the queries of an evaluation on episodes, if anybody does."""
    return evaluation.learner or method.learner


def fixed_in_evaluation(learner: Learner, model: Model, params: Params) -> str | None:
    """The last block whose features a learner reads as they are, the same in every episode."""
    if learner.transductive:
        return None
    return fixed_block(model, select(learner.changes, flatten(params)))


def adapts_convolutions(
    learner: Learner, model: Model, params: Params, state: State, inputs: PyTree
) -> bool:
    """Whether a learner may change kernels of convolutions.

    Args:
        params, state: leaves [seeds or 1, ...].
        inputs: leaves [n, ...], what the model is applied to.
    """
    if not learner.changes:
        return False
    of_seed = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (params, state)
    )
    form = form_of(model, None, "logits")
    with alone():
        traced = batch_outputs.trace(form, *of_seed, row_shapes(inputs, 1))
    return contains(traced.jaxpr.jaxpr, {"conv_general_dilated"})


def episode_examples(evaluation: Evaluation, model: Model, seeds: Sequence[int]) -> Examples:
    """The rows of all episodes of each seed, one episode after another."""
    dataset, form, head = evaluation.dataset, evaluation.episodes, model.heads[evaluation.head]
    table, places = dataset.table(), []
    for seed in seeds:
        order = EpisodeOrder(
            groups_of(dataset, form, seed), form, seed, evaluation.tasks, EVALUATION
        )
        places.append(order.block(0, 1).ravel())
    if head.integer:
        labels, labelled = form.labels, np.ones(len(form.labels), bool)
        rows = [np.resize(np.arange(len(labels)), len(each)) for each in places]
    else:
        labels, labelled = table.labels_of(evaluation.column, head)
        rows = places
    # One more label stands for padding.
    labels = np.concatenate([labels, np.full((1, *labels.shape[1:]), head.missing)])
    labelled = np.concatenate([labelled, np.zeros((1, *labelled.shape[1:]), bool)])
    rows = [
        np.where(each == PADDING, len(labels) - 1, row)
        for row, each in zip(rows, places, strict=True)
    ]
    places = [np.maximum(each, 0) for each in places]
    return Examples([table.inputs] * len(seeds), labels, labelled, rows, places)


def episode_sums(
    form: Form, weights: tuple[Params, State], batch: Batch
) -> tuple[PyTree, jax.Array]:
    """(sums, number of episodes with an output that is not finite) of the episodes of a batch.

    Args:
        form: its `others` are (sums, head, form of the episodes, learner).
        batch: the rows of whole episodes, one after another.
    """
    sums, head, episodes, learner = form.others
    support = episodes.roles.count("support")

    def in_episodes(leaf: jax.Array) -> jax.Array:
        return leaf.reshape(-1, len(episodes.roles), *leaf.shape[1:])

    inputs, labels, known = jax.tree.map(
        in_episodes, (to_float(batch.inputs), batch.labels, batch.weights)
    )
    present = known.reshape(*known.shape[:2], -1).max(-1)
    tasks = make_batch(inputs, {head: labels}, present=present, roles=episodes.roles)
    logits, _ = episode_logits(
        learner,
        form.model,
        *weights,
        tasks,
        ways=form.model.heads[head].size,
        rng=jax.random.key(0),
        train=False,
    )
    labels, known = labels[:, support:], known[:, support:]
    finite = jnp.isfinite(logits).reshape(*logits.shape[:2], -1).all(-1)
    broken = ((present[:, support:] > 0) & ~finite).any(1)
    each = jax.vmap(sums)(logits, labels, known)
    return jax.tree.map(lambda leaf: leaf.sum(0), each), broken.sum()
