"""Eight simulated CPU devices, programs compiled fast rather than well, and errors where arrays of
different rank are broadcast.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)

import logging

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

# The same inputs each time, and nothing written beside the tests.
hypothesis.settings.register_profile(
    "jaxtl", max_examples=60, deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("jaxtl")


@pytest.fixture(autouse=True)
def the_same_loggers():
    """A command that a test runs in its own process does not decide what others log."""
    logger = logging.getLogger("jaxtl")
    level = logger.level
    yield
    logger.setLevel(level)
