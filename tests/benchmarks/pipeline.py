"""Variants of the in-memory input pipeline: 28x28 uint8 images, batch 64.

python pipeline.py step gathered|constant    our small-CNN step, its batch gathered and scaled in
                                             it, or the same one each time; one unit is a step
python pipeline.py examples jaxtl|numpy|torch    gather and scale alone; one unit is an example,
                                                 64 to a call
"""

import sys
from collections.abc import Callable

from duel import serve
from plain import order, scale, take
from small_cnn import BATCH, N, examples, parameters, stage


def step(batch: str) -> Callable[[int], float]:
    from ours import scanned

    return scanned(stage("all"), batch == "constant", parameters())


def gathered(variant: str) -> Callable[[int], None]:
    """run(units) that draws batch after batch."""
    rows, done = order(N, BATCH), 0
    if variant == "torch":
        import torch

        images, rows = torch.from_numpy(examples()[0]), torch.from_numpy(rows)

        def draw(index):
            return images[index].float() / 255
    elif variant == "numpy":
        images = examples()[0]

        def draw(index):
            return scale(images[index])
    else:
        import jax

        images, gather = jax.numpy.asarray(examples()[0]), jax.jit(take)

        def draw(index):
            return gather(images, index).block_until_ready()

    def run(units: int) -> None:
        nonlocal done
        for _ in range(-(-units // BATCH)):
            draw(rows[done % len(rows)])
            done += 1

    return run


if __name__ == "__main__":
    what, variant = sys.argv[1:]
    serve({"step": step, "examples": gathered}[what](variant))
