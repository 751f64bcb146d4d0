"""Our whole loop against our steps alone and against a hand-written scan."""

import pytest
from duel import compare


@pytest.mark.parametrize("model", ["cnn", "dense"])
def test_overhead(model):
    variants = {"jaxtl": "loop", "hand": "hand", "unsaved": "unsaved", "steps": "steps"}
    compare(f"overhead_{model}", {k: ["overhead.py", v, model] for k, v in variants.items()})
