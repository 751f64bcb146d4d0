"""Metrics of trained parameters on datasets that are only looked at."""

import copy
import functools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.data.streamed import is_streamed
from jaxtl.measure.criteria import CriteriaScorer
from jaxtl.models import forward
from jaxtl.plan import Criterion, Evaluation, Method, Model, Params, PyTree, State
from jaxtl.timing import phase


class Measured(NamedTuple):
    """One evaluation of all seeds.

    Attributes:
        metrics: {metric: [seeds] float64}, NaN where undefined, or where an output is not finite.
        confusion: [seeds, classes, classes] counts, rows true; None for regression.
        not_finite: [seeds], how many examples have an output that is not finite.
    """

    metrics: dict[str, np.ndarray]
    confusion: np.ndarray | None
    not_finite: np.ndarray = np.zeros(0, int)


class Evaluator:
    """Measures models on a fixed set of evaluations; compiles once per model and evaluation.

    Args:
        evals: {name: Evaluation}.
        seeds: a dataset drawn per seed is evaluated on each seed's own rows.
        batch_size: examples per batch.
        place: where the examples lie and the sums come out; the default device if None.
        limit: inputs of more bytes than this, and those that are streamed, stay on the host, from
            where they are read batch by batch.
        criteria: {name: Criterion}, to be scored beside.
    """

    def __init__(
        self,
        evals: Mapping[str, Evaluation],
        seeds: tuple[int, ...],
        batch_size: int,
        place: jax.sharding.Sharding | None = None,
        limit: float = math.inf,
        criteria: Mapping[str, Criterion] | None = None,
    ):
        self.scorer = CriteriaScorer(criteria or {}, seeds, batch_size, place)
        self._evals, self._seeds, self._batch_size = evals, seeds, batch_size
        self._place, self._limit = place, limit
        self._examples: dict[str, Callable[[], Iterable[PyTree]]] = {}
        self._compiled: dict[tuple, tuple] = {}

    @phase("evaluate")
    def measure(
        self, model: Model, method: Method, params: Params, state: State, heads: Collection[str]
    ) -> dict[str, Measured]:
        """{evaluation: what was measured} for the evaluations of some heads of the model.

        Args:
            model, method: a method's own `predict` is used if it has one.
            params, state: leaves lead with the axis of seeds.
            heads: those that are not random.
        """
        return {
            name: self.measure_one(name, model, method, params, state)
            for name, evaluation in self._evals.items()
            if evaluation.head in model.heads and evaluation.head in heads
        }

    def like(self, evals: Mapping[str, Evaluation]) -> Self:
        """The same examples and compiled programs, read by the `results` of other evaluations."""
        twin = copy.copy(self)
        twin._evals = evals
        return twin

    def measure_one(
        self, name: str, model: Model, method: Method, params: Params, state: State
    ) -> Measured:
        """What `measure` says of one evaluation."""
        evaluation = self._evals[name]
        if name not in self._examples:
            examples = _examples(evaluation, model, self._seeds, self._batch_size)
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(examples[0]))
            if is_streamed(examples[0]) or size > self._limit:
                self._examples[name] = functools.partial(_batches, *examples)
            else:
                resident = jax.device_put(examples, self._place)
                self._examples[name] = lambda: [resident]
        key = (name, id(model), id(method.predict))
        if key not in self._compiled:  # the model stays referenced, so its id is not reused
            sums = jax.jit(_sums(model, method.predict, evaluation), out_shardings=self._place)
            self._compiled[key] = (sums, model, method)
        parts = (self._compiled[key][0](params, state, *part) for part in self._examples[name]())
        sums = functools.reduce(functools.partial(jax.tree.map, jnp.add), parts)
        sums, not_finite = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), sums)
        results = [
            evaluation.results(jax.tree.map(lambda leaf, i=i: leaf[i], sums))
            for i in range(len(self._seeds))
        ]
        metrics = {
            metric: np.where(not_finite, np.nan, [result[metric] for result in results])
            for metric in results[0]
        }
        confusion = sums.get("confusion") if isinstance(sums, Mapping) else None
        return Measured(metrics, confusion, not_finite.astype(int))


def not_finite_lines(measured: Mapping[str, Measured], seeds: Sequence[int]) -> list[str]:
    """A line for each evaluation in which outputs are not finite."""
    lines = []
    for name, result in measured.items():
        counts = {seed: n for seed, n in zip(seeds, result.not_finite, strict=True) if n}
        if counts:
            which = ", ".join(f"{n} of seed {seed}" for seed, n in counts.items())
            lines.append(
                f"evaluation {name!r}: outputs are not finite ({which}), so its metrics are null"
            )
    return lines


def _examples(evaluation: Evaluation, model: Model, seeds: tuple[int, ...], batch_size: int):
    """(inputs, labels, which there are, rows and how often they count [seeds, batches, batch])."""
    table = evaluation.dataset.table()
    labels, labelled = table.labels_of(evaluation.column, model.heads[evaluation.head])
    per_seed = [evaluation.dataset.rows(seed) for seed in seeds]
    longest = max(map(len, per_seed))
    batches = -(-longest // batch_size)
    batch_size = -(-longest // batches)
    rows = np.zeros((len(seeds), batches * batch_size), np.int32)
    counts = np.zeros(rows.shape, np.float32)
    for i, chosen in enumerate(per_seed):
        rows[i, : len(chosen)] = chosen
        counts[i, : len(chosen)] = 1
    shape = (len(seeds), batches, batch_size)
    return table.inputs, labels, labelled, rows.reshape(shape), counts.reshape(shape)


def _batches(
    inputs: PyTree, labels: np.ndarray, labelled: np.ndarray, rows: np.ndarray, counts: np.ndarray
) -> Iterator[PyTree]:
    """The examples batch by batch: as `_examples`, with one batch, and inputs and labels for it.

    A row is read once for all seeds; as many rows are given for each batch, the last one repeated.
    """
    parts = [np.unique(rows[:, [j]], return_inverse=True) for j in range(rows.shape[1])]
    longest = max(len(members) for members, _ in parts)
    for j, (members, places) in enumerate(parts):
        members = np.pad(members, (0, longest - len(members)), "edge")
        chosen = jax.tree.map(lambda leaf, m=members: leaf[m], inputs)
        places = places.astype(np.int32)
        yield chosen, labels[members], labelled[members], places, counts[:, [j]]


def _sums(model: Model, predict: Callable | None, evaluation: Evaluation) -> Callable:
    """(params, state, inputs, labels, labelled, rows, counts) -> sums with the axis of seeds."""
    outputs = forward(model, predict)

    def all_seeds(params, state, inputs, labels, labelled, rows, counts):
        def batch_sums(params, state, rows, counts):
            batch = jax.tree.map(lambda x: x[rows], inputs)
            logits = outputs(params, state, batch)["logits"][evaluation.head]
            counted = counts.reshape(-1, *(1,) * (labelled.ndim - 1))
            sums = evaluation.sums(logits, labels[rows], counted * labelled[rows])
            finite = jnp.isfinite(logits).reshape(len(logits), -1).all(1)
            return sums, jnp.sum(jnp.where(finite, 0, counts))

        def one_seed(xs):
            params, state, rows, counts = xs
            shapes = jax.eval_shape(batch_sums, params, state, rows[0], counts[0])
            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

            def body(total, batch):
                return jax.tree.map(jnp.add, total, batch_sums(params, state, *batch)), None

            return jax.lax.scan(body, zeros, (rows, counts))[0]

        return jax.lax.map(one_seed, (params, state, rows, counts))

    return all_seeds
