"""Scores of models by criteria that need no labels of the target."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.data import to_float
from jaxtl.data.streamed import select
from jaxtl.plan import Criterion, Domain, Method, Model, Params, PyTree, State

PREFIX = "criteria/"


class Judge:
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
            found = [_examples(view, model, self._seeds) for view in self._views]
            self._examples = jax.device_put(found, self._place)
        key = (id(model), id(method.predict))
        if key not in self._compiled:  # the model stays referenced, so its id is not reused
            score = jax.jit(self._program(model, method.predict), out_shardings=self._place)
            self._compiled[key] = (score, model, method)
        found = self._compiled[key][0](params, state, self._examples)
        return {f"{PREFIX}{name}": np.asarray(found[name], np.float64) for name in self._criteria}

    def _program(self, model: Model, predict: Callable | None) -> Callable:
        def one_seed(params: Params, state: State, examples: list[PyTree]):
            def outputs(inputs: PyTree) -> dict:
                if predict is not None:
                    return predict(model, params, state, inputs)
                return model.apply(params, state.statistics, inputs)[0]

            def batched(inputs: PyTree) -> dict:
                return in_batches(outputs, inputs, self._batch_size)

            seen = []
            for one in examples:
                inputs = to_float(one["inputs"])
                seen.append({**batched(inputs), "inputs": inputs, "labels": one["labels"]})
            return {
                name: criterion.score(batched, *(seen[i] for i in self._used[name]))
                for name, criterion in self._criteria.items()
            }

        return lambda *trees: jax.lax.map(lambda args: one_seed(*args), trees)


def in_batches(function: Callable[[PyTree], PyTree], inputs: PyTree, size: int) -> PyTree:
    """A function of [n, ...] leaves, computed in batches of at most `size`, one after another."""
    n = len(jax.tree.leaves(inputs)[0])
    count = -(-n // size)
    size = -(-n // count)

    def cut(leaf: jax.Array) -> jax.Array:
        whole = jnp.pad(leaf, [(0, count * size - n), *[(0, 0)] * (leaf.ndim - 1)], "edge")
        return whole.reshape(count, size, *leaf.shape[1:])

    parts = jax.lax.map(function, jax.tree.map(cut, inputs))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n], parts)


def _examples(domain: Domain, model: Model, seeds: tuple[int, ...]) -> PyTree:
    """{"inputs", "labels"} of a domain, leaves [seeds, n, ...]."""
    table = domain.dataset.table()
    rows = [domain.dataset.rows(seed) for seed in seeds]
    rows = np.stack([own[: min(map(len, rows))] for own in rows])
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
