"""The command line inside the process of the tests, without a trace of it afterwards."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

OPTIONS = [
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
]


@contextlib.contextmanager
def containing() -> Iterator[pytest.MonkeyPatch]:
    """What the command line sets is set back; its programs are kept where all tests keep theirs."""
    caches = Path(jax.config.jax_compilation_cache_dir).parents[1]
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    levels = {name: logging.getLogger(name).level for name in ("jaxtl", "absl")}
    compilation_cache.reset_cache()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(caches))
        patch.setattr(sys, "path", [*sys.path])
        yield patch
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
