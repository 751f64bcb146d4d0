"""Training steps of the small CNN: ours against hand-written JAX, ordinary Flax and PyTorch."""

import importlib.util

import pytest
from duel import compare


@pytest.mark.parametrize("part", ["all", "frozen"])
def test_small_cnn(part):
    variants = ["jaxtl", "hand", "naive"]
    if importlib.util.find_spec("torch"):
        variants.append("torch")
    compare(f"small_cnn_{part}", {name: ["small_cnn.py", name, part] for name in variants})
