"""Meta-training steps of MAML: ours, all tasks at once, against PyTorch, task after task."""

import pytest
from duel import compare


@pytest.mark.parametrize("part", ["mlp", "conv"])
def test_maml(part):
    pytest.importorskip("torch")
    compare(f"maml_{part}", {name: ["maml.py", name, part] for name in ("jaxtl", "torch")})
