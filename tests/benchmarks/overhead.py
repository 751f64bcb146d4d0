"""Variants of a long run: what the loop around the steps costs.

python overhead.py loop|saving|steps|hand|scan cnn|dense|probe

`loop` is the whole of `train_stage` with log, progress and stage.json, at the rate that it notes in
stage.json; `saving` the same with a checkpoint every 0.6 seconds; `steps` our dispatches alone;
`hand` a hand-written scan of 16 steps to a call, `scan` one of 1024.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import small_cnn
import tiny_mlp
from duel import CHUNK, serve

LONG = 1024
WIDTH = 512
"""Features that the probe reads."""


def stage(model: str, num_steps: int):
    if model == "cnn":
        return small_cnn.stage("all", num_steps)
    if model == "probe":
        return tiny_mlp.stage(num_steps, WIDTH, probe=True)
    return tiny_mlp.stage(num_steps)


def parameters(model: str) -> dict:
    if model == "cnn":
        return small_cnn.parameters()
    return tiny_mlp.parameters(WIDTH) if model == "probe" else tiny_mlp.parameters()


def loop(model: str, checkpoint_minutes: float):
    """(units -> first loss, units -> seconds)."""
    from ours import train

    from jaxtl.train.options import RunOptions

    options = RunOptions(checkpoint_minutes=checkpoint_minutes)

    def trained(units: int):
        """The first dispatch, which warms up, does not count; in a fresh directory."""
        with tempfile.TemporaryDirectory() as directory:
            return train(
                stage(model, CHUNK + units), Path(directory) / "stage", options, parameters(model)
            )

    return (
        lambda units: trained(units).curves["loss"][0, 0],
        lambda units: units / trained(units).steps_per_second,
    )


def steps(model: str) -> Callable[[int], float]:
    from ours import ours

    return ours(stage(model, 10**9), cached=model == "probe", params=parameters(model))


def hand(model: str, chunk: int = CHUNK) -> Callable[[int], float]:
    if model == "cnn":
        return small_cnn.hand("all")
    return tiny_mlp.hand(WIDTH, True, chunk) if model == "probe" else tiny_mlp.hand(chunk=chunk)


def scan(model: str):
    """(units -> first loss, units -> seconds) of whole calls."""
    run = hand(model, LONG)

    def seconds(units: int) -> float:
        whole, began = -(-units // LONG) * LONG, time.perf_counter()
        run(whole)
        return (time.perf_counter() - began) * units / whole

    return run, seconds


if __name__ == "__main__":
    variant, model = sys.argv[1:]
    if variant in ("loop", "saving"):
        serve(*loop(model, 1.0 if variant == "loop" else 0.01))
    elif variant == "scan":
        serve(*scan(model))
    else:
        serve({"steps": steps, "hand": hand}[variant](model))
