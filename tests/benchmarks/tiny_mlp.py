"""A whole process: start, compile, 101 steps of a tiny MLP.

python tiny_mlp.py jaxtl|torch [COMPILATION_CACHE]
"""

import sys

import numpy as np

STEPS, BATCH = 101, 32


def examples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(512, 16)).astype(np.float32), rng.integers(0, 4, 512)


def jaxtl(cache: str | None) -> None:
    import jax
    import optax

    from jaxtl import cli, data, models
    from jaxtl.data.batches import index_block
    from jaxtl.methods import transfer
    from jaxtl.plan import Stage, labelled
    from jaxtl.train.loop import compile_stage, start
    from jaxtl.train.options import RunOptions
    from jaxtl.train.setup import resolve

    options = RunOptions(compilation_cache=cache or "")
    cli.configure(options, verbose=False)
    model = models.mlp({"y": models.classes(4)}, hidden=(64,))
    domain = labelled(data.arrays(*examples()), "y")
    setup = resolve(
        Stage("tiny", model, transfer.full(optax.adam(1e-3)), [domain], BATCH, STEPS), None
    )
    full = start(setup, (0,), None)
    schedule, dispatch, feed, streams = compile_stage(setup, (0,), full, options)
    carry, seeds = {k: v for k, v in full.items() if k != "frozen"}, jax.numpy.asarray([0])
    for step in range(0, STEPS, schedule.steps):
        count = min(schedule.steps, STEPS - step)
        block = index_block(streams, step, schedule.steps, BATCH)
        carry, metrics = dispatch(
            carry, full["frozen"], feed, seeds, block, np.int32(step), np.int32(count)
        )
    jax.block_until_ready((carry, metrics))


def torch() -> None:
    import torch
    from torch import nn

    x, y = (torch.from_numpy(a) for a in examples())
    net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    for step in range(STEPS):
        rows = torch.arange(step * BATCH, (step + 1) * BATCH) % len(x)
        adam.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        adam.step()


if __name__ == "__main__":
    if sys.argv[1] == "torch":
        torch()
    else:
        jaxtl(sys.argv[2] if len(sys.argv) > 2 else None)
