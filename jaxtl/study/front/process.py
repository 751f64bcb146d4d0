"""Manners in a process that may be somebody else's: settings for a run, set back after the last."""

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxtl.features import keeping
from jaxtl.surroundings import cache_folder
from jaxtl.train.options import RunOptions

CACHE = "jax_compilation_cache_dir"

_turn = threading.Lock()
_runs = 0
_before: dict[str, Any] = {}
"""JAX's settings as they were before the first of the runs that are under way."""


@contextlib.contextmanager
def settings(options: RunOptions) -> Iterator[None]:
    """The caches, the devices and the folder of the data of a run, while it lasts.

    A compilation cache that the process has chosen stays, unless the run names one. How many
    devices a CPU is split into stays after the run: JAX is told so once.

    Raises:
        ValueError: JAX is at work already with another number of CPU devices.
    """
    split_cpu(options.cpu_devices)
    limits = options.feature_folder_mb * 2**20, options.feature_cache_mb * 2**20
    features = keeping(options.feature_folder, *limits)
    with _compilation_cache(options), _data_folder(options), features:
        yield


def split_cpu(count: int) -> None:
    """Make one CPU look like several devices; 0 leaves it alone.

    Raises:
        ValueError: it is too late for that.
    """
    if not count:
        return
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:  # JAX has made its devices
        if (now := len(jax.devices("cpu"))) != count:
            raise ValueError(
                f"cpu_devices={count} comes too late: JAX is at work in this process already, with "
                f"{now} CPU device{'s' if now > 1 else ''}. Start the process (or the notebook's "
                "kernel) again and call this before anything else uses JAX"
            ) from error


@contextlib.contextmanager
def _compilation_cache(options: RunOptions) -> Iterator[None]:
    """Compiled programs are kept in a folder, for all runs under way in this process."""
    global _runs
    with _turn:
        chosen = getattr(jax.config, CACHE) is not None and options.compilation_cache == "auto"
        if not _runs and not chosen:
            _begin(cache_folder(options.compilation_cache))
        _runs += 1
    try:
        yield
    finally:
        with _turn:
            _runs -= 1
            if not _runs and _before:
                _set(_before)
                _before.clear()


def _begin(folder: str) -> None:
    if not folder:
        return
    wanted = {
        CACHE: folder,
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    _before.update({name: getattr(jax.config, name) for name in wanted})
    _set(wanted)
    # One that fills up or is damaged meanwhile costs time, not the run.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def _set(values: dict[str, Any]) -> None:
    for name, value in values.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # it reads its settings at the first compilation only


@contextlib.contextmanager
def _data_folder(options: RunOptions) -> Iterator[None]:
    """Where TFDS looks for datasets, if the run says so."""
    name = "TFDS_DATA_DIR"
    before = os.environ.get(name)
    if options.data_dir:
        os.environ[name] = options.data_dir
    try:
        yield
    finally:
        if options.data_dir and before is None:
            os.environ.pop(name, None)
        elif options.data_dir:
            os.environ[name] = before
