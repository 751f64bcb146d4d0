"""Metrics of trained parameters on datasets that are only looked at."""

import copy
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.data.streamed import is_streamed
from jaxtl.features import cut
from jaxtl.measure.criteria import CriteriaScorer
from jaxtl.measure.episodes import (
    adapts_convolutions,
    episode_examples,
    fixed_in_evaluation,
    learner_of,
)
from jaxtl.measure.examples import (
    Examples,
    Stacked,
    examples_of,
    one_by_one,
    stacked,
    table_bytes,
    with_features,
)
from jaxtl.measure.frozen import Latest, features_once
from jaxtl.measure.sums import sum_at_once, sum_on_host
from jaxtl.models.outputs import batch_outputs
from jaxtl.models.programs import batch_rows, form_of, on_one_cpu, rows_at_once
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
    """Measures models on a fixed set of evaluations; compiles once for what models compute.

    Args:
        evals: {name: Evaluation}.
        seeds: a dataset drawn per seed is evaluated on each seed's own rows.
        batch_size: examples per batch; 0 chooses as many as the device is fast with.
        place: where the examples lie and the sums come out; the default device if None. On one CPU
            they lie on the host, and several batches are computed at a time.
        limit: inputs of more bytes than this, and those that are streamed, stay on the host, from
            where they are read batch by batch.
        criteria: {name: Criterion}, to be scored beside.
    """

    def __init__(
        self,
        evals: Mapping[str, Evaluation],
        seeds: tuple[int, ...],
        batch_size: int = 0,
        place: jax.sharding.Sharding | None = None,
        limit: float = math.inf,
        criteria: Mapping[str, Criterion] | None = None,
    ):
        self.scorer = CriteriaScorer(criteria or {}, seeds, batch_size, place)
        self._evals, self.seeds, self._batch_size = evals, seeds, batch_size
        self._place, self._limit = place, limit
        self._examples: dict[str, Examples] = {}
        self._latest: dict[str, Latest] = {}
        self._resident: dict[str, tuple[Examples, int, Stacked]] = {}

    @phase("evaluate")
    def measure(
        self,
        model: Model,
        method: Method,
        params: Params,
        state: State,
        heads: Collection[str],
        block: str | None = None,
    ) -> dict[str, Measured]:
        """{evaluation: what was measured} for the evaluations of some heads of the model.

        Args:
            model, method: a method's own `predict` is used if it has one.
            params, state: leaves [seeds or 1, ...].
            heads: those that are not random.
            block: up to which the model's outputs are taken from the feature store, where that is
                worth it; None for a model that nobody asks again.
        """
        return {
            name: self.measure_one(name, model, method, params, state, block)
            for name, evaluation in self._evals.items()
            if can_answer(evaluation, model, method, heads)
        }

    def like(self, evals: Mapping[str, Evaluation]) -> Self:
        """The same examples, read by the `results` of other evaluations."""
        twin = copy.copy(self)
        twin._evals = evals
        return twin

    def measure_one(
        self,
        name: str,
        model: Model,
        method: Method,
        params: Params,
        state: State,
        block: str | None = None,
    ) -> Measured:
        """What `measure` says of one evaluation."""
        evaluation = self._evals[name]
        model, examples = self._from_features(name, model, method, params, state, block)
        size, weights = self._size(model, method, params, state, examples), (params, state)
        if evaluation.episodes is not None:
            learner, inputs = learner_of(evaluation, method), examples.inputs[0]
            if on_one_cpu(self._place) and adapts_convolutions(learner, model, *weights, inputs):
                size = 1  # kernels of several episodes are a grouped convolution, which is slow
            size = _whole_episodes(evaluation, size)
        if on_one_cpu(self._place):
            sums, not_finite = sum_on_host(evaluation, model, method, weights, examples, size)
        else:
            run = sum_at_once(evaluation, model, method, self._place)
            sums, not_finite = self._sum_at_once(name, run, weights, examples, size)
        results = [
            evaluation.results(jax.tree.map(lambda leaf, i=i: leaf[i], sums))
            for i in range(len(self.seeds))
        ]
        metrics = {
            metric: np.where(not_finite, np.nan, [result[metric] for result in results])
            for metric in results[0]
        }
        confusion = sums.get("confusion") if isinstance(sums, Mapping) else None
        return Measured(metrics, confusion, not_finite.astype(int))

    def _from_features(
        self,
        name: str,
        model: Model,
        method: Method,
        params: Params,
        state: State,
        block: str | None,
    ) -> tuple[Model, Examples]:
        """(blocks that are still to be applied, to what) of an evaluation."""
        evaluation, fixed = self._evals[name], None
        if name not in self._examples:
            draw = examples_of if evaluation.episodes is None else episode_examples
            self._examples[name] = draw(evaluation, model, self.seeds)
        examples = self._examples[name]
        if evaluation.episodes is not None:
            fixed = fixed_in_evaluation(learner_of(evaluation, method), model, params)
            if block is not None and not _reaches(model, fixed, block):
                block = None
        if block is not None:
            first, rest = cut(model, block)
            rows = dict(enumerate(map(np.unique, examples.places)))
            start = self._latest.setdefault(name, Latest()).get(
                first, params, state, examples.inputs[0], rows, functools.partial(_start, examples)
            )
            if start is not None:
                model, examples = rest, start
        if fixed in model.blocks:
            first, model = cut(model, fixed)
            features = features_once(first, params, state, examples)
            examples = with_features(examples, features)
        return model, examples

    def _size(
        self, model: Model, method: Method, params: Params, state: State, examples: Examples
    ) -> int:
        """Rows of a batch."""
        count = examples.longest
        if self._batch_size:
            return -(-count // -(-count // self._batch_size))
        form = form_of(model, method.predict, "logits")
        one_seed = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (params, state)
        )
        return batch_rows(count, rows_at_once(batch_outputs, form, *one_seed, examples.inputs[0]))

    def _sum_at_once(
        self,
        name: str,
        run: Callable,
        weights: tuple[Params, State],
        examples: Examples,
        size: int,
    ) -> PyTree:
        """(sums, examples whose outputs are not finite) of all seeds, by one program."""
        tables = examples.inputs
        if is_streamed(tables) or table_bytes(examples) > self._limit:
            parts = (run(*weights, part) for part in one_by_one(stacked(examples, size)))
            total = functools.reduce(functools.partial(jax.tree.map, jnp.add), parts)
        else:
            *latest, resident = self._resident.get(name, (None, 0, None))
            if latest[0] is not examples or latest[1] != size:
                resident = jax.device_put(stacked(examples, size), self._place)
                self._resident[name] = (examples, size, resident)
            total = run(*weights, resident)
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), total)


def can_answer(
    evaluation: Evaluation, model: Model, method: Method, heads: Collection[str]
) -> bool:
    """Whether an evaluation says something of a trained model.

    Args:
        heads: those that are not random; a learner needs none of them.
    """
    if evaluation.episodes is not None:
        return evaluation.head in model.heads and learner_of(evaluation, method) is not None
    return evaluation.head in model.heads and evaluation.head in heads


def _reaches(model: Model, fixed: str | None, block: str) -> bool:
    return fixed is not None and model.blocks.index(block) <= model.blocks.index(fixed)


def _start(examples: Examples, features: Sequence[PyTree] | None) -> Examples | None:
    return None if features is None else with_features(examples, features)


def _whole_episodes(evaluation: Evaluation, size: int) -> int:
    """About so many rows that are those of whole episodes, as many in each batch."""
    rows, tasks = len(evaluation.episodes.roles), evaluation.tasks
    batches = math.ceil(tasks / max(1, size // rows))
    return rows * math.ceil(tasks / batches)


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
