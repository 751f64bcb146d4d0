"""What each dispatch gathers from: the whole feed, or pages of one that is left on the host.

A page holds the rows of one dispatch. The order of the examples does not depend on how far ahead
they are read: pages are a function of (seed, step).
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxtl.data.batches import Stream, index_block
from jaxtl.data.streamed import is_streamed
from jaxtl.plan import PyTree
from jaxtl.train.feed import Feed, on_device

THREADS = min(8, os.cpu_count() or 1)
"""How many pages are read at a time, and ahead."""

PAGE_BYTES = 2**26
"""The number of steps per dispatch is chosen so that a page is no larger, if it can."""


def pages(
    feed: Feed,
    streams: list[list[Stream]],
    bounds: Iterable[tuple[int, int]],
    steps: int,
    batch_size: int,
    threads: int = THREADS,
) -> Iterator[tuple[Feed, np.ndarray]]:
    """The feed and the indices of each dispatch, in order.

    Args:
        feed: if it is on the host, rows are read ahead of their dispatch in threads.
        streams: [lanes][domains].
        bounds: (first step, first step of the next dispatch).
        steps: length of the block of indices; beyond the dispatch's end it repeats the last step.
        batch_size: examples of a domain in a step.
        threads: how many pages are read at a time, and ahead.

    Raises:
        ValueError: inputs are streamed, and grain is not installed.
    """

    def load(bound: tuple[int, int]) -> tuple[Feed, np.ndarray]:
        start, stop = bound
        block = index_block(streams, start, stop - start, batch_size)
        missing = [(0, 0), (0, steps - block.shape[1]), (0, 0), (0, 0)]
        return page(feed, np.pad(block, missing, "edge"))

    if on_device(feed):
        return map(load, bounds)
    return read_ahead(load, bounds, threads, required=is_streamed(feed))


def read_ahead(
    load: Callable[[Any], Any], items: Iterable[Any], threads: int = THREADS, required: bool = True
) -> Iterator[Any]:
    """`map(load, items)`, computed ahead in threads by Grain.

    Args:
        required: False does without threads where grain is not installed.

    Raises:
        ValueError: grain is required, and not installed.
    """
    try:
        import grain
    except ImportError as error:
        if required:
            raise ValueError(
                "reading data that do not fit in memory needs grain. Install it with: "
                "pip install 'jaxtl[stream]'"
            ) from error
        return map(load, items)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    return _closing(iter(grain.MapDataset.source(list(items)).map(load).to_iter_dataset(options)))


def _closing(iterator: Any) -> Iterator[Any]:
    with contextlib.closing(iterator):
        yield from iterator


def page(feed: Feed, block: np.ndarray) -> tuple[Feed, np.ndarray]:
    """The feed and the indices of one dispatch; both unchanged if the feed is on the device.

    Args:
        feed: all of it is on the host, or nothing.
        block: [lanes, steps, batch, domains] int32 rows.

    Returns:
        A feed of these rows alone, in which the lanes share nothing, and their places in it.
    """
    if on_device(feed):
        return feed, block
    lanes, steps, batch, domains = block.shape
    rows = block.reshape(lanes, steps * batch, domains)
    each = np.arange(lanes)[:, None]
    own = [
        jax.tree.map(lambda leaf, d=d: leaf[rows[..., d]], shared)
        | jax.tree.map(lambda leaf, d=d: leaf[each, rows[..., d]], columns)
        for d, (shared, columns) in enumerate(zip(feed.shared, feed.own, strict=True))
    ]
    places = np.arange(steps * batch, dtype=np.int32).reshape(1, steps, batch, 1)
    return Feed([{} for _ in own], own), np.broadcast_to(places, block.shape)


def abstract_page(feed: Feed, seeds: int, rows: int) -> Feed:
    """Shapes of the page of so many rows; of the feed itself if it is on the device."""

    def shapes(tree: PyTree, skipped: int) -> PyTree:
        def one(leaf):
            return jax.ShapeDtypeStruct((seeds, rows, *leaf.shape[skipped:]), leaf.dtype)

        return jax.tree.map(one, tree)

    if on_device(feed):
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), feed)
    own = [shapes(s, 1) | shapes(o, 2) for s, o in zip(feed.shared, feed.own, strict=True)]
    return Feed([{} for _ in own], own)


def page_steps(feed: Feed, seeds: int, batch_size: int, most: int) -> int:
    """The largest number of steps, at least one and at most `most`, with a page of `PAGE_BYTES`."""
    if on_device(feed):
        return most
    leaves = jax.tree.leaves(abstract_page(feed, seeds, batch_size))
    one = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    return max(1, min(most, PAGE_BYTES // one))
