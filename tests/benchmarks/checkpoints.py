"""Variants of saving and restoring 25 million float32 parameters.

python checkpoints.py jaxtl|torch blocked|written|restored

`blocked` is the time until a save returns, `written` until the files are complete. One unit is a
save, or a restore of what was saved.
"""

import functools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from duel import serve

LAYERS, SHAPE = 10, (2500, 1000)


def layers() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"layer_{i}": rng.normal(size=SHAPE).astype(np.float32) for i in range(LAYERS)}


def timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def jaxtl(what: str, directory: Path) -> Callable[[int], float]:
    """`Checkpoints` as the loop uses it; arrays are changed between saves, as training does."""
    import jax

    from jaxtl.train.store.checkpoints import Checkpoints

    checkpoints, step = Checkpoints(directory), 0
    change = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    state = {"trainable": {name: jax.numpy.asarray(x[None]) for name, x in layers().items()}}
    abstract = jax.eval_shape(lambda: state)

    def once() -> float:
        nonlocal state, step
        if what == "restored":
            if not step:
                checkpoints.save(0, state)
                checkpoints.wait()
                step = 1
            return timed(lambda: jax.block_until_ready(checkpoints.restore(0, abstract)))
        state, step = jax.block_until_ready(change(state)), step + 1
        blocked = timed(lambda: checkpoints.save(step, state))
        rest = timed(checkpoints.wait)
        return blocked if what == "blocked" else blocked + rest

    return lambda units: sum(once() for _ in range(units))


def torch(what: str, directory: Path) -> Callable[[int], float]:
    """`torch.save` and `torch.load` of a dict of tensors."""
    import torch

    state, path = {k: torch.from_numpy(x) for k, x in layers().items()}, directory / "state.pt"
    if what == "restored":
        torch.save(state, path)
        action = functools.partial(torch.load, path)
    else:
        action = functools.partial(torch.save, state, path)
    return lambda units: sum(timed(action) for _ in range(units))


if __name__ == "__main__":
    variant, what = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        seconds = {"jaxtl": jaxtl, "torch": torch}[variant](what, Path(directory))
        serve(lambda units: seconds(units) and None, seconds)
