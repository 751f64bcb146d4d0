"""Our whole loop against our steps alone and against hand-written scans."""

import pytest
from duel import compare


@pytest.mark.parametrize("model", ["cnn", "dense", "probe"])
def test_overhead(model):
    variants = {"jaxtl": "loop", "hand": "hand", "saving": "saving", "steps": "steps"}
    variants |= {"scan": "scan"} if model != "cnn" else {}
    compare(f"overhead_{model}", {k: ["overhead.py", v, model] for k, v in variants.items()})
