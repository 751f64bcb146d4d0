"""A whole process: start, compile, 101 steps of a tiny MLP.

python tiny_mlp.py jaxtl|torch [COMPILATION_CACHE]
"""

import sys

import numpy as np
from plain import dense, layer, order, scanned

STEPS, BATCH = 101, 32


def examples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(512, 16)).astype(np.float32), rng.integers(0, 4, 512)


def parameters() -> dict:
    rng = np.random.default_rng(1)
    return {"backbone": {"dense_0": layer(rng, 16, 64)}, "heads": {"y": layer(rng, 64, 4)}}


def stage(num_steps: int):
    import optax

    from jaxtl import data, models
    from jaxtl.methods import transfer
    from jaxtl.plan import Stage, labelled

    model = models.mlp({"y": models.classes(4)}, hidden=(64,))
    domain = labelled(data.arrays(*examples()), "y")
    return Stage(
        "tiny",
        model,
        transfer.full(optax.adam(1e-3)),
        domains=[domain],
        batch_size=BATCH,
        num_steps=num_steps,
    )


def jaxtl(cache: str | None) -> None:
    from ours import ours

    from jaxtl import cli
    from jaxtl.study.front.process import settings
    from jaxtl.train.options import RunOptions

    options = RunOptions(compilation_cache=cache or "")
    cli.configure(verbose=False)
    with settings(options):
        ours(stage(STEPS), options=options)(STEPS)


def hand():
    """run(units) of the same steps in plain JAX."""
    import jax
    import optax

    def loss_fn(params, fixed, batch):
        x, labels = batch
        hidden = jax.nn.relu(dense(x, params["backbone"]["dense_0"]))
        logits = dense(hidden, params["heads"]["y"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return scanned(loss_fn, optax.adam(1e-3), parameters(), {}, examples(), order(512, BATCH))


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
