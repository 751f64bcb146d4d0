"""What an evaluation sums over its examples: on one CPU batch by batch, else by one program."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.measure.episodes import episode_sums, learner_of
from jaxtl.measure.examples import Batch, Examples, Stacked, batches
from jaxtl.measure.seeds import call_for_seeds
from jaxtl.models import forward
from jaxtl.models.programs import MOST_FORMS, Form, batch_rows, calls_at_a_time, form_of, program
from jaxtl.plan import Evaluation, Method, Model, Params, PyTree, State
from jaxtl.train.resolve.replicas import map_replicas

SUMMED_ROWS = 4096
"""Rows whose outputs are summed at a time."""

Weights = tuple[Params, State]


def sum_on_host(
    evaluation: Evaluation,
    model: Model,
    method: Method,
    weights: Weights,
    examples: Examples,
    size: int,
) -> PyTree:
    """(sums, examples whose outputs are not finite), leaves [seeds, ...] float64.

    Args:
        weights: leaves [seeds or 1, ...].
        size: rows of a batch.
    """
    calls = batches(examples, size)
    if evaluation.episodes is None:
        form = form_of(model, method.predict, evaluation.head)
        each = call_for_seeds(_logits, form, weights, calls, calls_at_a_time())
        parts = _collected(form_of(None, None, evaluation.sums), each, examples)
    else:
        form = _form(evaluation, model, method)
        parts = call_for_seeds(_batch_sums, form, weights, calls, calls_at_a_time())
    totals: list[PyTree] = [None] * len(examples.rows)
    for seed, part in parts:
        part, total = jax.tree.map(np.float64, part), totals[seed]
        totals[seed] = part if total is None else jax.tree.map(np.add, total, part)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *totals)


def _collected(
    form: Form, parts: Iterator[tuple[int, Batch]], examples: Examples
) -> Iterator[tuple[int, PyTree]]:
    """(seed, sums) of many rows at a time, so that models whose batches differ share a program."""
    rows = batch_rows(examples.longest, SUMMED_ROWS)
    pending: list[list[Batch]] = [[] for _ in examples.rows]

    def summed(seed: int) -> Iterator[tuple[int, PyTree]]:
        columns = zip(*pending[seed], strict=True)
        whole = Batch(*(np.concatenate(leaves) for leaves in columns))
        pending[seed].clear()
        for start in range(0, len(whole.counts), rows):
            part = _filled_up(Batch(*(leaf[start : start + rows] for leaf in whole)), rows)
            yield seed, jax.device_get(program(_sums, form, part).run(part))

    for seed, batch in parts:
        pending[seed].append(batch)
        if sum(len(each.counts) for each in pending[seed]) >= rows:
            yield from summed(seed)
    for seed in range(len(pending)):
        if pending[seed]:
            yield from summed(seed)


def _filled_up(batch: Batch, rows: int) -> Batch:
    """A batch of so many rows; those that are added have weight 0."""

    def pad(leaf: np.ndarray, mode: str) -> np.ndarray:
        return np.pad(leaf, [(0, rows - len(leaf)), *[(0, 0)] * (leaf.ndim - 1)], mode)

    modes = ("edge", "edge", "constant", "constant")
    return Batch(*(pad(leaf, mode) for leaf, mode in zip(batch, modes, strict=True)))


def sum_at_once(
    evaluation: Evaluation, model: Model, method: Method, place: jax.sharding.Sharding | None
) -> Callable[..., PyTree]:
    """(params, state, Stacked) -> (sums, not finite), leaves [seeds, ...], of all its batches."""
    return _all_sums(_form(evaluation, model, method), place)


def _form(evaluation: Evaluation, model: Model, method: Method) -> Form:
    if evaluation.episodes is None:
        return form_of(model, method.predict, evaluation.sums, evaluation.head, None, None)
    learner = learner_of(evaluation, method)
    # As in `predict`, what is live may count: a transductive learner reads it.
    others = (evaluation.sums, evaluation.head, evaluation.episodes, learner)
    return form_of(model, learner.predict, *others)


@functools.partial(jax.jit, static_argnums=0)
def _logits(form: Form, weights: Weights, batch: Batch) -> Batch:
    """A batch of one seed, with the outputs of a head in the place of its inputs."""
    (head,) = form.others
    output = forward(form.model, form.predict)(*weights, batch.inputs)
    return batch._replace(inputs=output["logits"][head])


@functools.partial(jax.jit, static_argnums=0)
def _sums(form: Form, batch: Batch) -> PyTree:
    """(sums, number of examples whose outputs are not finite) of a batch of `_logits`."""
    (sums,), logits = form.others, batch.inputs
    finite = jnp.isfinite(logits).reshape(len(logits), -1).all(1)
    counted = jnp.sum(jnp.where(finite, 0, batch.counts))
    return sums(logits, batch.labels, batch.weights), counted


@functools.partial(jax.jit, static_argnums=0)
def _batch_sums(form: Form, weights: Weights, batch: Batch) -> PyTree:
    """What `_sums` gives, from the inputs of one seed."""
    sums, head, episodes, _ = form.others
    if episodes is not None:
        return episode_sums(form, weights, batch)
    batch = _logits(form_of(form.model, form.predict, head), weights, batch)
    return _sums(form_of(None, None, sums), batch)


@functools.lru_cache(MOST_FORMS)
def _all_sums(form: Form, place: jax.sharding.Sharding | None) -> Callable:
    """Jitted (params, state, Stacked) -> what `_batch_sums` gives, [seeds, ...], of all batches."""

    def all_seeds(params: Params, state: State, examples: Stacked) -> PyTree:
        def one_seed(weights: Weights, *index: jax.Array) -> PyTree:
            def sums_of(rows: jax.Array, places: jax.Array, counts: jax.Array) -> PyTree:
                labels, labelled = examples.labels[rows], examples.labelled[rows]
                counted = counts.reshape(-1, *(1,) * (labelled.ndim - 1))
                inputs = jax.tree.map(lambda leaf: leaf[places], examples.inputs)
                return _batch_sums(form, weights, Batch(inputs, labels, counted * labelled, counts))

            def add(total: PyTree, index: tuple[jax.Array, ...]) -> tuple[PyTree, None]:
                return jax.tree.map(jnp.add, total, sums_of(*index)), None

            shapes = jax.eval_shape(sums_of, *(each[0] for each in index))
            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
            return jax.lax.scan(add, zeros, index)[0]

        index = (examples.rows, examples.places, examples.counts)
        return map_replicas(one_seed, ((params, state), *index), len(examples.rows))

    return jax.jit(all_seeds, out_shardings=place)
