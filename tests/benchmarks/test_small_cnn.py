"""Training steps of the small CNN: ours against hand-written JAX, ordinary Flax and PyTorch."""

import pytest
from duel import compare


@pytest.mark.parametrize("part", ["all", "sharded", "frozen"])
def test_small_cnn(part):
    variants = ("jaxtl", "hand", "naive", "torch")
    compare(f"small_cnn_{part}", {name: ["small_cnn.py", name, part] for name in variants})


def test_small_cnn_cached():
    variants = {name: ["small_cnn.py", name, "cached"] for name in ("jaxtl", "hand", "torch")}
    compare("small_cnn_cached", {**variants, "recomputed": ["small_cnn.py", "jaxtl", "frozen"]})


def test_frozen_against_all():
    parts = {"jaxtl": "frozen", "all": "all"}
    compare("small_cnn_gain", {k: ["small_cnn.py", "jaxtl", part] for k, part in parts.items()})
