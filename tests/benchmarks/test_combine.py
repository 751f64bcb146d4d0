"""Steps of PCGrad and MGDA: ours against PyTorch with a backward pass a task, and a plain sum."""

import pytest
from duel import compare


@pytest.mark.parametrize("tasks", [3, 10])
@pytest.mark.parametrize("rule", ["pcgrad", "mgda"])
def test_combine(rule, tasks):
    variants = ("jaxtl", "torch", "equal")
    compare(
        f"combine_{rule}_{tasks}",
        {name: ["combine.py", name, rule, str(tasks)] for name in variants},
    )
