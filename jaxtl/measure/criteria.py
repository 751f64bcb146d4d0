"""Scores of models by criteria that need no labels of the target."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxtl.data.streamed import select
from jaxtl.features import cut
from jaxtl.measure.frozen import stored_features
from jaxtl.measure.seeds import call_for_seeds
from jaxtl.models import forward, in_batches, to_float
from jaxtl.models.outputs import batch_outputs
from jaxtl.models.programs import (
    MOST_FORMS,
    Form,
    calls_at_a_time,
    form_of,
    on_one_cpu,
    rows_at_once,
)
from jaxtl.plan import CRITERIA, Criterion, Domain, Method, Metric, Model, Params, PyTree, State
from jaxtl.train.resolve.replicas import map_replicas


def criterion_metric(name: str) -> Metric:
    """The metric that the scores of a criterion are; better when larger."""
    return Metric(CRITERIA, name, "max")


class CriteriaScorer:
    """Scores models by a fixed set of criteria; compiles once for what models compute.

    Args:
        criteria: {name: Criterion}.
        seeds: a dataset drawn per seed is looked at in each seed's own rows; where seeds have
            unequally many, in the first of them.
        batch_size: examples per batch; 0 chooses as many as the device is fast with.
        place: where the examples lie and the scores come out; the default device if None. On one
            CPU they lie on the host, and several seeds are scored at a time.
    """

    def __init__(
        self,
        criteria: Mapping[str, Criterion],
        seeds: tuple[int, ...],
        batch_size: int = 0,
        place: jax.sharding.Sharding | None = None,
    ):
        self._criteria, self._seeds = criteria, seeds
        self._batch_size, self._place = batch_size, place
        self._domains: list[Domain] = []  # criteria that look at the same data share a pass
        self._used = tuple(
            (name, criterion.score, tuple(map(self._place_of, criterion.domains)))
            for name, criterion in criteria.items()
        )
        self._views: list[_View] = []
        self._resident: list[PyTree] | None = None

    def _place_of(self, domain: Domain) -> int:
        if domain not in self._domains:
            self._domains.append(domain)
        return self._domains.index(domain)

    def scores(
        self,
        model: Model,
        method: Method,
        params: Params,
        state: State,
        block: str | None = None,
    ) -> dict[str, np.ndarray]:
        """{"criteria/<name>": [seeds] float64}, NaN where undefined.

        Args:
            model, method: a method's own `predict` is used if it has one.
            params, state: leaves [seeds or 1, ...].
            block: up to which outputs are taken from the feature store, as `Evaluator.measure`.
        """
        if not self._criteria:
            return {}
        if not self._views:
            self._views = [_view_of(domain, model, self._seeds) for domain in self._domains]
        whole, weights = form_of(model, method.predict, "logits"), (params, state)
        size, rest, starts = self._batch_size, model, None
        if self._views and not size:
            of_seed = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), weights
            )
            inputs = self._domains[0].dataset.table().inputs
            size = rows_at_once(batch_outputs, whole, *of_seed, inputs)
        if block is not None:
            first, rest = cut(model, block)
            starts = [
                stored_features(
                    first, *weights, domain.dataset.table().inputs, dict(enumerate(view.rows))
                )
                for domain, view in zip(self._domains, self._views, strict=True)
            ]
            if None in starts:
                rest, starts = model, None
        form = form_of(rest, method.predict, self._used, size, whole)
        seeds = range(len(self._seeds))
        if on_one_cpu(self._place):
            examples = ((i, self._of_seed(i, starts)) for i in seeds)
            calls = call_for_seeds(_score, form, weights, examples, calls_at_a_time())
            each = [scores for _, scores in calls]
            scores = {name: [of_seed[name] for of_seed in each] for name in self._criteria}
        else:
            examples = [self._of_seed(i, starts) for i in seeds]
            if starts is not None or self._resident is None:
                resident = jax.device_put(_held_once(examples), self._place)
                self._resident = resident if starts is None else None
            else:
                resident = self._resident
            scores = _score_all(form, self._place, len(seeds))(weights, resident)
        return {
            criterion_metric(name).key: np.asarray(scores[name], np.float64)
            for name in self._criteria
        }

    def _of_seed(self, seed: int, starts: Sequence[Mapping[int, PyTree]] | None) -> list[PyTree]:
        """[views] of a seed, with what the rest of a model starts from."""
        views = [view.examples[seed] for view in self._views]
        if starts is None:
            return views
        pairs = zip(views, starts, strict=True)
        return [{**view, "start": features[seed]} for view, features in pairs]


class _View(NamedTuple):
    """A domain that criteria look at.

    Attributes:
        rows: of each seed, as many of each.
        examples: of each seed, {"inputs", "labels"}, leaves [n, ...]; one object for equal rows.
    """

    rows: Sequence[np.ndarray]
    examples: Sequence[PyTree]


@functools.partial(jax.jit, static_argnums=0)
def _score(form: Form, weights: tuple[Params, State], views: Sequence[PyTree]) -> PyTree:
    """{criterion: score} of one seed."""
    used, size, whole = form.others
    from_inputs, from_start = (
        functools.partial(
            in_batches, functools.partial(forward(each.model, each.predict), *weights), size=size
        )
        for each in (whole, form)
    )
    examples = []
    for view in views:
        inputs = to_float(view["inputs"])
        outputs = from_start(view["start"]) if "start" in view else from_inputs(inputs)
        examples.append({**outputs, "inputs": inputs, "labels": view["labels"]})
    return {
        name: score(from_inputs, *(examples[i] for i in places)) for name, score, places in used
    }


@functools.lru_cache(MOST_FORMS)
def _score_all(form: Form, place: jax.sharding.Sharding | None, count: int) -> Callable:
    """Jitted (weights, views) -> {criterion: [seeds]}, leaves [seeds or 1, ...]."""

    def all_seeds(weights: tuple[Params, State], views: Sequence[PyTree]) -> PyTree:
        return map_replicas(functools.partial(_score, form), (weights, views), count)

    return jax.jit(all_seeds, out_shardings=place)


def _held_once(views: Sequence[Sequence[PyTree]]) -> list[PyTree]:
    """[views], leaves [seeds, ...], or [1, ...] where all seeds have the same array."""

    def stack(*leaves: np.ndarray) -> np.ndarray:
        same = all(leaf is leaves[0] for leaf in leaves)
        return leaves[0][None] if same else np.stack(leaves)

    return jax.tree.map(stack, *views)


def _view_of(domain: Domain, model: Model, seeds: Sequence[int]) -> _View:
    table = domain.dataset.table()
    rows = [domain.dataset.rows(seed) for seed in seeds]
    rows = [each[: min(map(len, rows))] for each in rows]
    examples: dict[bytes, PyTree] = {}
    for each in rows:
        if each.tobytes() in examples:
            continue
        labels = {}
        for name, column in domain.heads.items():
            head = model.heads[name]
            if domain.labelled:
                labels[name] = table.labels_of(column, head)[0][each]
            else:
                hidden = np.int32(-1) if head.integer else np.float32(np.nan)
                labels[name] = np.full((len(each), *head.label_shape), hidden)
        inputs = jax.tree.map(np.asarray, select(table.inputs, each))
        examples[each.tobytes()] = {"inputs": inputs, "labels": labels}
    return _View(rows, [examples[each.tobytes()] for each in rows])
