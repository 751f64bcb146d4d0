"""Scores of models by criteria that need no labels of the target."""

import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np

from jaxtl.data.streamed import select
from jaxtl.models import forward, in_batches, to_float
from jaxtl.plan import CRITERIA, Criterion, Domain, Method, Metric, Model, Params, PyTree, State


def criterion_metric(name: str) -> Metric:
    """The metric that the scores of a criterion are; better when larger."""
    return Metric(CRITERIA, name, "max")


class CriteriaScorer:
    """Scores models by a fixed set of criteria; compiles once per model.

    Args:
        criteria: {name: Criterion}.
        seeds: a dataset drawn per seed is looked at in each seed's own rows; where seeds have
            unequally many, in the first of them.
        batch_size: examples per batch.
        place: where the examples lie and the scores come out; the default device if None.
    """

    def __init__(
        self,
        criteria: Mapping[str, Criterion],
        seeds: tuple[int, ...],
        batch_size: int,
        place: jax.sharding.Sharding | None = None,
    ):
        self._criteria, self._seeds = criteria, seeds
        self._batch_size, self._place = batch_size, place
        self._views: list[Domain] = []  # criteria that look at the same data share a pass over them
        self._used: dict[str, list[int]] = {}
        for name, criterion in criteria.items():
            self._used[name] = [self._view(domain) for domain in criterion.domains]
        self._examples: list[PyTree] | None = None
        self._compiled: dict[tuple[int, int], tuple] = {}

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
            params, state: leaves lead with the axis of seeds.
        """
        if not self._criteria:
            return {}
        if self._examples is None:
            examples = [_examples(view, model, self._seeds) for view in self._views]
            self._examples = jax.device_put(examples, self._place)
        key = (id(model), id(method.predict))
        if key not in self._compiled:  # the model stays referenced, so its id is not reused
            score = jax.jit(self._program(model, method.predict), out_shardings=self._place)
            self._compiled[key] = (score, model, method)
        scores = self._compiled[key][0](params, state, self._examples)
        return {
            criterion_metric(name).key: np.asarray(scores[name], np.float64)
            for name in self._criteria
        }

    def _program(self, model: Model, predict: Callable | None) -> Callable:
        def one_seed(params: Params, state: State, examples: list[PyTree]):
            outputs = functools.partial(forward(model, predict), params, state)
            batched = functools.partial(in_batches, outputs, size=self._batch_size)
            views = []
            for view in examples:
                inputs = to_float(view["inputs"])
                views.append({**batched(inputs), "inputs": inputs, "labels": view["labels"]})
            return {
                name: criterion.score(batched, *(views[i] for i in self._used[name]))
                for name, criterion in self._criteria.items()
            }

        return lambda *trees: jax.lax.map(lambda args: one_seed(*args), trees)


def _examples(domain: Domain, model: Model, seeds: tuple[int, ...]) -> PyTree:
    """{"inputs", "labels"} of a domain, leaves [seeds, n, ...]."""
    table = domain.dataset.table()
    rows = [domain.dataset.rows(seed) for seed in seeds]
    rows = np.stack([each[: min(map(len, rows))] for each in rows])
    labels = {}
    for name, column in domain.heads.items():
        head = model.heads[name]
        if domain.labelled:
            labels[name] = table.labels_of(column, head)[0][rows]
        else:
            hidden = np.int32(-1) if head.integer else np.float32(np.nan)
            labels[name] = np.full((*rows.shape, *head.label_shape), hidden)
    inputs = select(table.inputs, rows.ravel())
    inputs = jax.tree.map(
        lambda leaf: np.asarray(leaf).reshape(*rows.shape, *leaf.shape[1:]), inputs
    )
    return {"inputs": inputs, "labels": labels}
