"""Variants of a long run: what the loop around the steps costs.

python overhead.py loop|unsaved|steps|hand cnn|dense

`loop` is the whole of `train_stage` with log, progress, stage.json and a checkpoint every 1000
steps, at the rate that it notes in stage.json; `unsaved` the same with no checkpoint before the
end; `steps` our dispatches alone; `hand` a hand-written scan.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import small_cnn
import tiny_mlp
from duel import CHUNK, serve


def stage(model: str, num_steps: int):
    if model == "cnn":
        return small_cnn.stage("all", num_steps)
    return tiny_mlp.stage(num_steps)


def parameters(model: str) -> dict:
    return {"cnn": small_cnn, "dense": tiny_mlp}[model].parameters()


def loop(model: str, checkpoint_every: int):
    """(units -> first loss, units -> seconds)."""
    from ours import train

    from jaxtl.train.options import RunOptions

    def trained(units: int):
        """The first dispatch, which compiles, does not count; in a fresh directory."""
        options = RunOptions(checkpoint_every=checkpoint_every)
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

    return ours(stage(model, 10**9), params=parameters(model))


def hand(model: str) -> Callable[[int], float]:
    if model == "cnn":
        return small_cnn.hand("all")
    return tiny_mlp.hand()


if __name__ == "__main__":
    variant, model = sys.argv[1:]
    if variant in ("loop", "unsaved"):
        serve(*loop(model, 1000 if variant == "loop" else 10**9))
    else:
        serve({"steps": steps, "hand": hand}[variant](model))
