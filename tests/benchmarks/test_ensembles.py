"""A step of 16 small models at once: ours against hand-written JAX and PyTorch."""

import pytest
from duel import compare


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_ensembles(kind):
    variants = ("jaxtl", "hand", "hand_own", "torch", "torch_bmm")
    compare(f"ensemble_{kind}", {name: ["ensembles.py", name, kind] for name in variants})
