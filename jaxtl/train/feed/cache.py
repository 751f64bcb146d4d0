"""The automatic feature cache: frozen first blocks run once per example, not once per step.

The method gets the rest of the model, and their outputs as the inputs of its batches. Everything
else of the stage, checkpoints included, does not know about it.
"""

import logging
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxtl.features import store
from jaxtl.paths import flatten, nest
from jaxtl.plan import Params, PyTree, Stage, Statistics
from jaxtl.train.feed.examples import Feed, host_feed
from jaxtl.train.feed.order import Stream
from jaxtl.train.feed.prefix import Prefix, constant_prefix, needs_only_features
from jaxtl.train.feed.tempered import stream_of
from jaxtl.train.mesh import on_all_devices, to_host
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.replicas import Replicas, replica
from jaxtl.train.state import TrainState

logger = logging.getLogger(__name__)

FILL_BYTES = 2**26
"""Features that are asked of the store at a time."""


class Cache(NamedTuple):
    """A stage that starts from features.

    Attributes:
        replicas: the stage's, with the rest of the model.
        feed: the examples that are drawn, with features as inputs; on the host if they lie on disk.
        streams: [replicas][domains] orders of the rows of the feed.
        note: what is cached, for the log.
    """

    replicas: Replicas
    feed: Feed
    streams: list[list[Stream]]
    note: str


def cache_features(
    replicas: Replicas, train: TrainState, options: RunOptions, directory: Path
) -> Cache | None:
    """Compute the features of a stage, if the method cannot tell the difference.

    Args:
        train: the state of the stage, before its first step or any later one.
        options: whether, and how much memory the features of all replicas may take.
        directory: of the stage; takes features that need more, in files without a name, which are
            gone when the process ends.

    Returns:
        None where no block is frozen from the first one on, where features change from step to
        step, and where the disk is full.
    """
    setup, stage = replicas.setup, replicas.setup.stage
    if not (options.feature_cache and stage.num_steps and stage.method.updates):
        return None
    if stage.episodes is not None:  # a learner may change any block
        return None
    prefix = constant_prefix(setup)
    if prefix is None:
        return None
    what = f"features after {prefix.block}"
    if not needs_only_features(setup, prefix):
        logger.info("stage %s: %s not cached, its method reads more", stage.name, what)
        return None
    example = prefix.program.features
    row_bytes = sum(math.prod(x.shape[1:]) * x.dtype.itemsize for x in jax.tree.leaves(example))
    rows = drawn_rows(stage, replicas.seeds, _same_in_all_replicas(train, prefix))
    size = row_bytes * sum(r.size for r in rows)
    on_disk = size > options.feature_cache_mb * 2**20
    what = f"{what} cached {'on disk' if on_disk else 'in memory'}, {size / 2**20:.1f} MB"
    try:
        if on_disk and size > shutil.disk_usage(directory).free:
            raise OSError(f"no space left in {directory}")
        place = directory if on_disk else None
        stored = [_empty(example, r.shape, place) for r in rows]
    except OSError as error:
        logger.warning("stage %s: no %s: %s", stage.name, what, error)
        return None
    _fill(stored, prefix, train, stage, rows)
    feed, streams = _feed(replicas, stored, rows, on_disk)
    return Cache(replicas.with_model(prefix.rest), feed, streams, what)


def drawn_rows(stage: Stage, seeds: tuple[int, ...], shared: bool) -> list[np.ndarray]:
    """[domains] of [groups, n], the rows that the stage's batches hold, ascending.

    A group with fewer rows than another is filled up with its last.

    Args:
        shared: one group for all seeds, otherwise one for each.
    """
    drawn, result = stage.num_steps * stage.batch_size, []
    for d, domain in enumerate(stage.domains):
        groups = []
        for seed in seeds:
            rows = domain.dataset.rows(seed)
            groups.append(stream_of(domain, seed, d).read(0, drawn) if drawn < len(rows) else rows)
        groups = [np.concatenate(groups)] if shared else groups
        groups = [np.unique(group) for group in groups]
        longest = max(map(len, groups))
        result.append(np.stack([np.pad(g, (0, longest - len(g)), "edge") for g in groups]))
    return result


def _same_in_all_replicas(train: TrainState, prefix: Prefix) -> bool:
    leaves = flatten(train.frozen) | flatten(train.state.statistics)
    arrays = (to_host(leaves[path]) for path in prefix.reads if len(leaves[path]) > 1)
    return all((array == array[:1]).all() for array in arrays)


def _empty(example: PyTree, lead: tuple[int, ...], directory: Path | None) -> PyTree:
    """Uninitialised arrays [*lead, ...], in a file of the directory if one is given."""

    def empty(leaf):
        shape = (*lead, *leaf.shape[1:])
        if directory is None:
            return np.empty(shape, leaf.dtype)
        with tempfile.TemporaryFile(dir=directory) as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is an error now, not a crash later
                os.posix_fallocate(file.fileno(), 0, math.prod(shape) * leaf.dtype.itemsize)
            return np.memmap(file, leaf.dtype, "w+", shape=shape)

    return jax.tree.map(empty, example)


def _fill(
    stored: list[PyTree], prefix: Prefix, train: TrainState, stage: Stage, rows: list[np.ndarray]
) -> None:
    """Get the features of all rows from the store, some at a time.

    Args:
        stored: [domains] of leaves [groups, n, ...].
        rows: [domains] of [groups, n].
    """
    row_bytes = sum(leaf[0, :1].nbytes for leaf in jax.tree.leaves(stored[0]))
    step = max(1, FILL_BYTES // row_bytes)
    for group in range(len(rows[0])):
        weights = _weights(train, prefix, group)
        for domain, groups, target in zip(stage.domains, rows, stored, strict=True):
            inputs = domain.dataset.table().inputs
            for start in range(0, groups.shape[1], step):
                part = slice(start, start + step)
                chosen = groups[group, part]
                values = store().features(prefix.first, *weights, inputs, chosen, train=True)
                for whole, some in zip(*map(jax.tree.leaves, (target, values)), strict=True):
                    whole[group, part] = some


def _weights(train: TrainState, prefix: Prefix, number: int) -> tuple[Params, Statistics]:
    """Parameters and batch statistics of one replica; what the prefix does not read is abstract."""
    reads = prefix.reads

    def leaf_of(path: str, leaf: jax.Array) -> jax.Array | jax.ShapeDtypeStruct:
        if path in reads:
            return replica(leaf, number)
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)

    trees = (train.params, train.state.statistics)
    params, statistics = (
        nest({path: leaf_of(path, leaf) for path, leaf in flatten(tree).items()}) for tree in trees
    )
    return params, statistics


def _feed(
    replicas: Replicas,
    stored: list[PyTree],
    rows: list[np.ndarray],
    on_disk: bool,
) -> tuple[Feed, list[list[Stream]]]:
    """The drawn examples, renumbered, and their orders.

    Args:
        stored: [domains] features, leaves [groups, n, ...].
        rows: [domains] of [groups, n], their rows in the tables.
    """
    whole, shared, per_replica = host_feed(replicas), [], []
    streams = [[] for _ in replicas.seeds]
    domains, each = replicas.setup.stage.domains, np.arange(len(replicas))[:, None]
    for d, (domain, features, groups) in enumerate(zip(domains, stored, rows, strict=True)):
        drawn = np.broadcast_to(groups, (len(replicas), groups.shape[1]))
        columns = jax.tree.map(lambda leaf, drawn=drawn: leaf[each, drawn], whole.per_replica[d])
        columns["labels"] = {name: x[drawn] for name, x in whole.shared[d]["labels"].items()}
        columns["index"] = drawn
        if len(groups) == 1:
            shared.append({"inputs": jax.tree.map(lambda leaf: leaf[0], features)})
        else:
            shared.append({})
            columns["inputs"] = features
        per_replica.append(columns)
        for i, seed in enumerate(replicas.seeds):
            # A row that is never drawn may point anywhere.
            places = np.searchsorted(drawn[i], domain.dataset.rows(seed))
            places = np.minimum(places, drawn.shape[1] - 1)
            streams[i].append(stream_of(domain, seed, d, places))
    feed = Feed(shared, per_replica)
    return (feed if on_disk else jax.device_put(feed, on_all_devices())), streams
