"""Scores of models by criteria that need no labels of the target."""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from jaxtl.data.streamed import select
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
        self._views: list[Domain] = []  # criteria that look at the same data share a pass over them
        used = []
        for name, criterion in criteria.items():
            used.append((name, criterion.score, tuple(map(self._view, criterion.domains))))
        self._used = tuple(used)
        self._examples: list[PyTree] | None = None

    def _view(self, domain: Domain) -> int:
        if domain not in self._views:
            self._views.append(domain)
        return self._views.index(domain)

    def scores(
        self, model: Model, method: Method, params: Params, state: State
    ) -> dict[str, np.ndarray]:
        """{"criteria/<name>": [seeds] float64}, NaN where undefined.

        Args:
            model, method: a method's own `predict` is used if it has one.
            params, state: leaves [seeds or 1, ...].
        """
        if not self._criteria:
            return {}
        if self._examples is None:
            self._examples = self._load(model)
        weights, size = (params, state), self._batch_size
        if not size and self._views:
            form = form_of(model, method.predict, "logits")
            of_seed = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), weights
            )
            inputs = self._views[0].dataset.table().inputs
            size = rows_at_once(batch_outputs, form, *of_seed, inputs)
        form = form_of(model, method.predict, self._used, size)
        if on_one_cpu(self._place):
            calls = call_for_seeds(
                _score, form, weights, enumerate(self._examples), calls_at_a_time()
            )
            each = [scores for _, scores in calls]
            scores = {name: [of_seed[name] for of_seed in each] for name in self._criteria}
        else:
            scores = _score_all(form, self._place)(weights, self._examples)
        return {
            criterion_metric(name).key: np.asarray(scores[name], np.float64)
            for name in self._criteria
        }

    def _load(self, model: Model) -> list[PyTree]:
        """[seeds] of [views] on one CPU, else [views] with leaves [seeds, ...] on the device."""
        views = [_examples(view, model, self._seeds) for view in self._views]
        if on_one_cpu(self._place):
            return [[view[i] for view in views] for i in range(len(self._seeds))]
        views = [jax.tree.map(lambda *leaves: np.stack(leaves), *view) for view in views]
        return jax.device_put(views, self._place)


@functools.partial(jax.jit, static_argnums=0)
def _score(form: Form, weights: tuple[Params, State], views: Sequence[PyTree]) -> PyTree:
    """{criterion: score} of one seed."""
    used, size = form.others
    outputs = functools.partial(forward(form.model, form.predict), *weights)
    batched = functools.partial(in_batches, outputs, size=size)
    examples = []
    for view in views:
        inputs = to_float(view["inputs"])
        examples.append({**batched(inputs), "inputs": inputs, "labels": view["labels"]})
    return {name: score(batched, *(examples[i] for i in places)) for name, score, places in used}


@functools.lru_cache(MOST_FORMS)
def _score_all(form: Form, place: jax.sharding.Sharding | None) -> Callable:
    """Jitted (weights, views) -> {criterion: [seeds]}, leaves [seeds, ...]."""

    def all_seeds(weights: tuple[Params, State], views: Sequence[PyTree]) -> PyTree:
        count = len(jax.tree.leaves(views)[0])
        return map_replicas(functools.partial(_score, form), (weights, views), count)

    return jax.jit(all_seeds, out_shardings=place)


def _examples(domain: Domain, model: Model, seeds: Sequence[int]) -> list[PyTree]:
    """{"inputs", "labels"} of a domain for each seed, leaves [n, ...]; one for equal rows."""
    table = domain.dataset.table()
    rows = [domain.dataset.rows(seed) for seed in seeds]
    fewest = min(map(len, rows))
    views: dict[bytes, PyTree] = {}
    for each in (each[:fewest] for each in rows):
        if each.tobytes() in views:
            continue
        labels = {}
        for name, column in domain.heads.items():
            head = model.heads[name]
            if domain.labelled:
                labels[name] = table.labels_of(column, head)[0][each]
            else:
                hidden = np.int32(-1) if head.integer else np.float32(np.nan)
                labels[name] = np.full((fewest, *head.label_shape), hidden)
        inputs = jax.tree.map(np.asarray, select(table.inputs, each))
        views[each.tobytes()] = {"inputs": inputs, "labels": labels}
    return [views[each[:fewest].tobytes()] for each in rows]
