"""The examples of a stage: resident on the device, gathered by index inside the compiled step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.data import to_float
from jaxtl.data.batches import Stream
from jaxtl.plan import Batch, Columns, Domain, Head, PyTree, Stage


class Feed(NamedTuple):
    """What the step gathers from; one entry per domain.

    Attributes:
        shared: [{"inputs": leaves [n, ...], "labels": {head: [n, ...]}}], the same for all seeds.
        own: [{"weights": {head: [seeds, n]}}], of each seed.
    """

    shared: list[dict[str, PyTree]]
    own: list[dict[str, PyTree]]


def columns(domain: Domain, heads: dict[str, Head], seed: int) -> Columns:
    """The examples of one domain that one seed trains on, with hidden labels hidden."""
    table, rows = domain.dataset.table(), domain.dataset.rows(seed)
    labels = {head: _labels(domain, heads[head], table, head)[rows] for head in domain.heads}
    weights = {head: _weights(domain, heads[head], table, rows, head) for head in domain.heads}
    return Columns(jax.tree.map(lambda leaf: leaf[rows], table.inputs), labels, weights)


def _labels(domain: Domain, head: Head, table: Any, name: str) -> np.ndarray:
    """[n, *label_shape] int32 or float32, all -1 or NaN where the domain is unlabelled."""
    column = table.labels[domain.heads[name]]
    if domain.labelled:
        return column.astype(np.int32 if head.integer else np.float32)
    hidden = np.full((len(column), *head.label_shape), -1 if head.integer else np.nan)
    return hidden.astype(np.int32 if head.integer else np.float32)


def _weights(domain: Domain, head: Head, table: Any, rows: np.ndarray, name: str) -> np.ndarray:
    """[len(rows)] float32: lambda_d lambda_{d,i}, 0 where the label is missing or hidden."""
    labels = _labels(domain, head, table, name)[rows]
    known = labels >= 0 if head.integer else ~np.isnan(labels)
    weights = known.reshape(len(rows), -1).all(1) * np.float32(domain.weight)
    if domain.example_weights is not None and domain.labelled:
        seen = {column: values[rows] for column, values in table.labels.items()}
        weights = weights * domain.example_weights(seen)
    return weights.astype(np.float32)


def active_heads(stage: Stage) -> tuple[str, ...]:
    """Heads that some domain of the stage names, in the model's order."""
    named = {head for domain in stage.domains for head in domain.heads}
    return tuple(head for head in stage.model.heads if head in named)


def make_feed(stage: Stage, seeds: tuple[int, ...]) -> Feed:
    """Put the stage's examples on the device, images as they are stored (uint8)."""
    shared, own = [], []
    for domain in stage.domains:
        table, heads = domain.dataset.table(), stage.model.heads
        labels = {head: _labels(domain, heads[head], table, head) for head in domain.heads}
        weights = {}
        for head in domain.heads:
            dense = np.zeros((len(seeds), len(labels[head])), np.float32)
            for i, seed in enumerate(seeds):
                rows = domain.dataset.rows(seed)
                dense[i, rows] = _weights(domain, heads[head], table, rows, head)
            weights[head] = dense
        shared.append({"inputs": table.inputs, "labels": labels})
        own.append({"weights": weights})
    return Feed(*jax.device_put((shared, own)))


def make_streams(stage: Stage, seeds: tuple[int, ...]) -> list[list[Stream]]:
    """[seeds][domains] orders of the examples."""
    return [
        [Stream(domain.dataset.rows(seed), seed, d) for d, domain in enumerate(stage.domains)]
        for seed in seeds
    ]


def gather(
    stage: Stage, shared: list[PyTree], own: list[PyTree], index: jax.Array, rng: jax.Array
) -> Batch:
    """The batch of one step and seed.

    Args:
        stage: its domains say what is augmented, its heads what is filled in where a domain lacks
            a label.
        shared, own: as in `Feed`, `own` without its axis of seeds.
        index: [batch, domains] int32.
        rng: key of the augmentations.
    """
    per_domain = []
    for d, domain in enumerate(stage.domains):
        rows = index[:, d]
        inputs = to_float(jax.tree.map(lambda x, rows=rows: x[rows], shared[d]["inputs"]))
        if domain.augment is not None:
            inputs = domain.augment(jax.random.fold_in(rng, d), inputs)
        labels, weights = {}, {}
        for name in active_heads(stage):
            head = stage.model.heads[name]
            if name in domain.heads:
                labels[name] = shared[d]["labels"][name][rows]
                weights[name] = own[d]["weights"][name][rows]
            else:
                shape = (len(rows), *head.label_shape)
                dtype = jnp.int32 if head.integer else jnp.float32
                labels[name] = jnp.full(shape, -1 if head.integer else jnp.nan, dtype)
                weights[name] = jnp.zeros(len(rows), jnp.float32)
        per_domain.append({"inputs": inputs, "labels": labels, "weights": weights})
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *per_domain)
