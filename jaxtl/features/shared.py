"""The store of this process, and what a run makes of it."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtl.features.feature_store import Counts, FeatureStore
from jaxtl.features.programs import cut
from jaxtl.files import user_cache
from jaxtl.models import outputs
from jaxtl.plan import Model, Params, PyTree, State

logger = logging.getLogger(__name__)

_store = FeatureStore()


def store() -> FeatureStore:
    """The store that all share; it keeps features in memory, and on disk within `keeping`."""
    return _store


@contextlib.contextmanager
def keeping(folder: str, folder_bytes: float, memory_bytes: float) -> Iterator[FeatureStore]:
    """A run: while it lasts, the store uses its folder and limits, and counts for it.

    Args:
        folder: `auto` for the user's cache folder; empty for none.
        folder_bytes, memory_bytes: see `FeatureStore`.
    """
    before = _store.folder, _store.folder_bytes, _store.memory_bytes
    _store.keep_in(_place(folder), folder_bytes, memory_bytes)
    earlier, _store.counts = _store.counts, Counts()
    try:
        yield _store
    finally:
        _store.flush()
        _store.keep_in(*before)
        _store.counts = earlier + _store.counts


def _place(folder: str) -> Path | None:
    if folder != "auto":
        return Path(folder) if folder else None
    try:
        return user_cache("features")
    except RuntimeError as error:  # no home
        logger.warning("no features are kept for later runs: %s", error)
        return None


def backbone_features(model: Model, params: Params, state: State, inputs: PyTree) -> np.ndarray:
    """The features [n, ...] of all rows as `outputs` gives them; the blocks are not run again.

    Args:
        model, params, state: of one seed, as they predict.
        inputs: leaves [n, ...] in memory or streamed, as a table stores them.
    """
    if not model.blocks:
        return outputs(model, params, state, inputs, "features")
    first, rest = cut(model, model.blocks[-1])
    rows = np.arange(len(jax.tree.leaves(inputs)[0]))
    values = _store.features(first, params, state.statistics, inputs, rows)
    return outputs(rest, params, state, values, "features")


def counted() -> dict[str, Any] | None:
    """What the store did since this run began, as JSON; None if that is nothing."""
    counts = _store.counts
    if not counts.computed + counts.from_memory + counts.from_disk:
        return None
    return {
        "computed": counts.computed,
        "from_memory": counts.from_memory,
        "from_disk": counts.from_disk,
        "seconds_computing": round(counts.seconds_computing, 3),
        "seconds_saved": round(counts.seconds_saved, 3),
    }


def in_words(counts: dict[str, Any]) -> str:
    """`features of 12,000 examples were computed once, 130,000 times read: about 4 min saved`."""
    read, seconds = counts["from_memory"] + counts["from_disk"], counts["seconds_saved"]
    text = f"features of {counts['computed']:,} examples were computed once"
    if not counts["computed"]:
        text = "features of frozen layers were all there"
    if read:
        text += f", {read:,} times read"
    saved = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
    return text + (f": about {saved} saved" if seconds >= 0.5 else "")
