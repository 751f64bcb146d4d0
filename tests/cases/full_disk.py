"""A disk that is full: no file grows beyond some bytes."""

import contextlib
import resource
from collections.abc import Iterator

import jax

SECONDS = "jax_persistent_cache_min_compile_time_secs"


@contextlib.contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes; half a compiled program is not kept for other tests."""
    before, seconds = resource.getrlimit(resource.RLIMIT_FSIZE), getattr(jax.config, SECONDS)
    jax.config.update(SECONDS, 1e9)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        jax.config.update(SECONDS, seconds)
