"""Eight simulated CPU devices, programs compiled fast rather than well and once for all workers,
and errors where arrays of different rank are broadcast.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of a test's time is compilation. The older emitters of loops and one part per module need
# less than half of what the defaults do, for programs that run for milliseconds.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)

import logging
from pathlib import Path

import hypothesis
import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

jax.config.update("jax_numpy_rank_promotion", "raise")

# The same inputs each time, and nothing written beside the tests.
hypothesis.settings.register_profile(
    "jaxtl", max_examples=60, deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("jaxtl")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Neighbours stay together, so that what a module's tests share is made by one worker."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Equal programs of all tests are compiled once; the user's own caches stay as they are."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of the session, which its workers share
    caches = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    os.environ.setdefault("HF_HOME", os.path.join(caches, "huggingface"))
    os.environ["XDG_CACHE_HOME"] = str(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder / "jaxtl" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # it reads its settings once


@pytest.fixture(autouse=True)
def the_same_loggers():
    """A command that a test runs in its own process does not decide what others log."""
    logger = logging.getLogger("jaxtl")
    level = logger.level
    yield
    logger.setLevel(level)
