"""Adaptation steps of LeNet: ours against hand-written JAX, ordinary Flax and PyTorch."""

import pytest
from duel import compare


@pytest.mark.parametrize("method", ["dann", "cdan", "mkmmd"])
def test_lenet(method):
    variants = ("jaxtl", "hand", "naive", "torch")
    compare(f"lenet_{method}", {name: ["lenet.py", name, method] for name in variants})
