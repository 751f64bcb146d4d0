"""Checkpoints of 25 million parameters, one at a time: ours against PyTorch."""

import pytest
from duel import compare


@pytest.mark.parametrize("what", ["blocked", "written", "restored"])
def test_checkpoints(what):
    variants = {name: ["checkpoints.py", name, what] for name in ("jaxtl", "torch")}
    compare(f"checkpoint_{what}", variants, units=1)
