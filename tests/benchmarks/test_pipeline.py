"""What drawing a batch costs: as a part of our step, and alone."""

from duel import compare


def test_share_of_the_step():
    variants = {"jaxtl": "gathered", "constant": "constant"}
    compare("pipeline_share", {k: ["pipeline.py", "step", v] for k, v in variants.items()})


def test_gather():
    variants = ("jaxtl", "numpy", "torch")
    compare("pipeline_gather", {name: ["pipeline.py", "examples", name] for name in variants})
