"""The examples of a stage, gathered by index inside the compiled step.

They are resident on the device. A feed that is left on the host instead, because its inputs lie on
disk or are too large, is read page by page. A page holds the rows of one dispatch. The order of the
examples does not depend on how far ahead they are read: pages are a function of (seed, step).
"""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.data.streamed import is_streamed, read_ahead, select
from jaxtl.models import to_float
from jaxtl.plan import Columns, Domain, Head, PyTree, Stage
from jaxtl.plan.batch import Batch
from jaxtl.train.feed.episodes import PADDING, EpisodeOrder, groups_of
from jaxtl.train.feed.order import Stream, index_block
from jaxtl.train.feed.tempered import stream_of
from jaxtl.train.mesh import on_all_devices
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.replicas import Replicas
from jaxtl.train.resolve.stage import Setup, active_heads, lead_of, roles_of

logger = logging.getLogger(__name__)


class Feed(NamedTuple):
    """What the step gathers from, by domain: {"inputs", "labels", "weights", "present"}.

    All of it is on the device, or on the host. Where its rows are not those of the domain's table,
    there is an "index" besides, which says what they are there.

    Attributes:
        shared: [its columns that are the same for all replicas], leaves [n, ...].
        per_replica: [its other columns], leaves [replicas, n, ...]; or [seeds, n, ...], where all
            points of a sweep share them.
    """

    shared: list[dict[str, PyTree]]
    per_replica: list[dict[str, PyTree]]


def columns(domain: Domain, heads: Mapping[str, Head], seed: int) -> Columns:
    """The examples of one domain that one seed trains on, with hidden labels hidden."""
    inputs, rows = domain.dataset.table().inputs, domain.dataset.rows(seed)
    labels = {name: label_columns(domain, name, heads[name])[0][rows] for name in domain.heads}
    return Columns(select(inputs, rows), labels, *row_weights(domain, heads, rows), domain.role)


def label_columns(domain: Domain, name: str, head: Head) -> tuple[np.ndarray, np.ndarray]:
    """(labels of a head, which may be used), [n, *label_shape]; an unlabelled domain hides all.

    Classes of episodes are numbered anew in each: here all are 0.
    """
    table = domain.dataset.table()
    if domain.episodes is not None and head.integer:
        groups = np.asarray(table.labels[domain.episodes.groups])
        return np.zeros(len(groups), np.int32), groups >= 0
    if domain.labelled:
        return table.labels_of(domain.heads[name], head)
    shape = (len(table), *head.label_shape)
    return np.full(shape, head.missing), np.zeros(shape, bool)


def row_weights(
    domain: Domain, heads: Mapping[str, Head], rows: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({head: [len(rows), *label_shape]}, [len(rows)]), float32.

    The second is lambda_{d,i}, the first lambda_d lambda_{d,i}, or 0 where a label is missing or
    hidden.
    """
    present = np.ones(len(rows), np.float32)
    if domain.example_weights is not None and domain.labelled:
        table = domain.dataset.table()
        labels = {column: values[rows] for column, values in table.labels.items()}
        present = np.asarray(domain.example_weights(labels), np.float32)
    weights = {}
    for name in domain.heads:
        usable = label_columns(domain, name, heads[name])[1][rows]
        factors = present.reshape(-1, *(1,) * (usable.ndim - 1))
        weights[name] = (usable * np.float32(domain.weight) * factors).astype(np.float32)
    return weights, present


def make_feed(replicas: Replicas, options: RunOptions) -> Feed:
    """The stage's examples, on the device if they fit; images as they are stored (uint8)."""
    feed = host_feed(replicas)
    inputs = [columns["inputs"] for columns in feed.shared]
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(inputs))
    if not is_streamed(inputs) and size <= device_limit(options):
        return jax.device_put(feed, on_all_devices())
    what = "streamed" if is_streamed(inputs) else "read from memory"
    logger.info("stage %s: %.1f MB of inputs are %s", replicas.setup.stage.name, size / 2**20, what)
    return feed


def device_limit(options: RunOptions) -> float:
    """Bytes of inputs that may lie on a device."""
    if options.device_data_mb:
        return options.device_data_mb * 2**20
    memory = jax.local_devices()[0].memory_stats() or {}
    return memory.get("bytes_limit", math.inf) / 2


def on_device(feed: Feed) -> bool:
    """Whether steps can gather from the feed as it is."""
    return all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(feed))


def host_feed(replicas: Replicas) -> Feed:
    """The whole tables of the stage on the host; weights are 0 where a replica has no example."""
    stage, shared, per_replica = replicas.setup.stage, [], []
    for d, domain in enumerate(stage.domains):
        table, heads = domain.dataset.table(), stage.model.heads
        labels = {name: label_columns(domain, name, heads[name])[0] for name in domain.heads}
        lead = (len(replicas), len(table))
        weights = {name: np.zeros((*lead, *heads[name].label_shape), np.float32) for name in labels}
        present = np.zeros(lead, np.float32)
        for i, (seed, setup) in enumerate(zip(replicas.seeds, replicas.setups, strict=True)):
            rows = domain.dataset.rows(seed)
            of_seed, present[i, rows] = row_weights(setup.stage.domains[d], heads, rows)
            for name, values in of_seed.items():
                weights[name][i, rows] = values
        shared.append({"inputs": table.inputs, "labels": labels})
        per_replica.append({"weights": weights, "present": present})
    return Feed(shared, per_replica)


def shared_by_points(feed: Feed, replicas: Replicas) -> Feed:
    """The feed with the columns of the first point only, if they are those of every point."""
    if replicas.points == 1 or not on_device(feed):
        return feed

    def alike(leaf: jax.Array) -> bool:
        points = leaf.reshape(replicas.points, -1, *leaf.shape[1:])
        return bool((points == points[:1]).all())

    if not all(map(alike, jax.tree.leaves(feed.per_replica))):
        return feed
    seeds = len(replicas) // replicas.points
    return Feed(feed.shared, jax.tree.map(lambda leaf: leaf[:seeds], feed.per_replica))


def make_streams(replicas: Replicas) -> list[Sequence[Stream] | EpisodeOrder]:
    """[replicas] orders of the examples; replicas of one seed share theirs."""
    stage = replicas.setup.stage

    def order(seed: int) -> Sequence[Stream] | EpisodeOrder:
        if stage.episodes is not None:
            groups = groups_of(stage.domains[0].dataset, stage.episodes, seed)
            return EpisodeOrder(groups, stage.episodes, seed, stage.batch_size)
        return [stream_of(domain, seed, d) for d, domain in enumerate(stage.domains)]

    of_seed = {seed: order(seed) for seed in set(replicas.seeds)}
    return [of_seed[seed] for seed in replicas.seeds]


def gather(
    stage: Stage, shared: list[PyTree], per_replica: list[PyTree], index: jax.Array, rng: jax.Array
) -> Batch:
    """The batch of one step and seed.

    Args:
        stage: its domains say what is augmented, its heads what is filled in where a domain lacks
            a label.
        shared, per_replica: as in `Feed`, the latter without its axis of replicas.
        index: [batch, domains] int32; [tasks, rows] of episodes.
        rng: key of the augmentations.
    """
    if stage.episodes is not None:
        return _gather_episodes(stage, {**shared[0], **per_replica[0]}, index, rng)
    per_domain = []
    for d, domain in enumerate(stage.domains):
        rows, examples = index[:, d], {**shared[d], **per_replica[d]}
        inputs = to_float(jax.tree.map(lambda x, rows=rows: x[rows], examples["inputs"]))
        if domain.augment is not None:
            inputs = domain.augment(jax.random.fold_in(rng, d), inputs)
        labels, weights = {}, {}
        for name in active_heads(stage):
            head = stage.model.heads[name]
            if name in domain.heads:
                labels[name] = examples["labels"][name][rows]
                weights[name] = examples["weights"][name][rows]
            else:
                shape = (len(rows), *head.label_shape)
                labels[name] = jnp.full(shape, head.missing)
                weights[name] = jnp.zeros(shape, jnp.float32)
        table_rows = examples["index"][rows] if "index" in examples else rows
        per_domain.append((inputs, labels, weights, examples["present"][rows], table_rows))
    columns = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *per_domain)
    return Batch(*columns, roles_of(stage))


def _gather_episodes(
    stage: Stage, examples: dict[str, PyTree], index: jax.Array, rng: jax.Array
) -> Batch:
    """The same of a stage that draws episodes from its one domain."""
    (domain,), rows = stage.domains, jnp.maximum(index, 0)
    inputs = to_float(jax.tree.map(lambda x: x[rows], examples["inputs"]))
    if domain.augment is not None:
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), inputs)
        flat = domain.augment(jax.random.fold_in(rng, 0), flat)
        inputs = jax.tree.map(lambda x: x.reshape(*index.shape, *x.shape[1:]), flat)
    present = jnp.where(index == PADDING, 0.0, examples["present"][rows])
    labels, weights = {}, {}
    for name in domain.heads:
        if stage.model.heads[name].integer:
            labels[name] = jnp.broadcast_to(stage.episodes.labels, index.shape)
        else:
            labels[name] = examples["labels"][name][rows]
        padded = present.reshape(*index.shape, *[1] * (labels[name].ndim - 2)) == 0
        weights[name] = jnp.where(padded, 0.0, examples["weights"][name][rows])
    table_rows = examples["index"][rows] if "index" in examples else rows
    return Batch(inputs, labels, weights, present, table_rows, roles_of(stage))


PAGE_BYTES = 2**26
"""The number of steps per dispatch is chosen so that a page is no larger, if it can."""


def pages(
    feed: Feed,
    streams: list[list[Stream]],
    bounds: Iterable[tuple[int, int]],
    steps: int,
    batch_size: int,
) -> Iterator[tuple[tuple[int, int], Feed, np.ndarray]]:
    """(its bounds, the feed, the indices) of each dispatch, in order.

    Args:
        feed: if it is on the host, rows are read ahead of their dispatch in threads, and the bounds
            of all dispatches are asked for at once; else those of each when that is asked for.
        streams: [replicas][domains].
        bounds: (first step, first step of the next dispatch).
        steps: length of the block of indices; what it holds beyond the dispatch's end is not used.
        batch_size: examples of a domain in a step.

    Raises:
        ValueError: inputs are streamed, and grain is not installed.
    """

    def load(bound: tuple[int, int]) -> tuple[tuple[int, int], Feed, np.ndarray]:
        start, stop = bound
        block = index_block(streams, start, stop - start, batch_size, steps)
        if not on_device(feed):  # rows of a page are read, used or not: the last ones once more
            block[:, stop - start :] = block[:, stop - start - 1 : stop - start]
        return bound, *page(feed, block)

    if on_device(feed):
        return map(load, bounds)
    return read_ahead(load, bounds, required=is_streamed(feed))


def page(feed: Feed, block: np.ndarray) -> tuple[Feed, np.ndarray]:
    """The feed and the indices of one dispatch; both unchanged if the feed is on the device.

    Args:
        feed: all of it is on the host, or nothing.
        block: [replicas, steps, batch, domains] int32 rows; of episodes, [.., tasks, rows].

    Returns:
        A feed of these rows alone, in which the replicas share nothing, and their places in it.
    """
    if on_device(feed):
        return feed, block
    # A step gathers from its page by place; "index" says which rows of the table these are.
    replicas, steps, batch, _ = block.shape
    rows = block.reshape(replicas, -1, len(feed.shared))
    each = np.arange(replicas)[:, None]
    per_replica = [
        {"index": rows[..., d]}
        | jax.tree.map(lambda leaf, d=d: leaf[rows[..., d]], shared)
        | jax.tree.map(lambda leaf, d=d: leaf[each, rows[..., d]], columns)
        for d, (shared, columns) in enumerate(zip(feed.shared, feed.per_replica, strict=True))
    ]
    places = np.arange(rows.shape[1], dtype=np.int32).reshape(1, steps, batch, -1)
    return Feed([{}] * len(per_replica), per_replica), np.where(block == PADDING, block, places)


def first_page(feed: Feed, replicas: Replicas) -> Feed:
    """A page of one row; the feed itself if it is on the device."""
    block = np.zeros((len(replicas), 1, 1, len(feed.shared)), np.int32)
    return page(feed, block)[0]


def page_steps(feed: Feed, replicas: Replicas, most: int) -> int:
    """The largest number of steps, at least one and at most `most`, with a page of `PAGE_BYTES`."""
    if on_device(feed):
        return most
    row_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(first_page(feed, replicas)))
    rows = math.prod(lead_of(replicas.setup.stage)) // len(feed.shared)
    return max(1, min(most, PAGE_BYTES // (row_bytes * rows)))


def abstract_batch(setup: Setup) -> Batch:
    """The shapes of the batch of one step."""
    stage = setup.stage
    lead = lead_of(stage)
    labels, weights = {}, {}
    for name in active_heads(stage):
        head = stage.model.heads[name]
        shape = (*lead, *head.label_shape)
        labels[name] = jax.ShapeDtypeStruct(shape, head.missing.dtype)
        weights[name] = jax.ShapeDtypeStruct(shape, jnp.float32)
    inputs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((*lead, *leaf.shape[1:]), leaf.dtype), setup.inputs
    )
    present, index = (jax.ShapeDtypeStruct(lead, dtype) for dtype in (jnp.float32, jnp.int32))
    return Batch(inputs, labels, weights, present, index, roles_of(stage))
