"""A tiny MLP, whole or a probe of its features. Run, a whole process: start, compile, 101 steps.

python tiny_mlp.py jaxtl|torch [COMPILATION_CACHE]
"""

import sys

import numpy as np
from plain import CHUNK, dense, layer, order, scanned

STEPS, BATCH = 101, 32


def examples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(512, 16)).astype(np.float32), rng.integers(0, 4, 512)


def parameters(width: int = 64) -> dict:
    rng = np.random.default_rng(1)
    return {"backbone": {"dense_0": layer(rng, 16, width)}, "heads": {"y": layer(rng, width, 4)}}


def stage(num_steps: int, width: int = 64, probe: bool = False):
    """A stage that trains all, or the head alone on cached features."""
    import dataclasses

    import optax

    from jaxtl import data, models
    from jaxtl.methods import transfer
    from jaxtl.plan import Stage, labelled

    model = models.mlp({"y": models.classes(4)}, hidden=(width,))
    domain, adam = labelled(data.arrays(*examples()), "y"), optax.adam(1e-3)
    method = transfer.probe(adam) if probe else transfer.full(adam)
    return Stage(
        "tiny",
        model,
        dataclasses.replace(method, fresh_frozen=probe),
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


def hand(width: int = 64, probe: bool = False, chunk: int = CHUNK):
    """run(units) of the same steps in plain JAX, `chunk` to a call."""
    import jax
    import optax

    def features(layers, x):
        return jax.nn.relu(dense(x, layers["dense_0"]))

    def loss_fn(params, fixed, batch):
        x, labels = batch
        hidden = x if probe else features(params["backbone"], x)
        logits = dense(hidden, params["heads"]["y"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    params, (inputs, labels) = parameters(width), examples()
    if probe:
        inputs = features(params.pop("backbone"), inputs)
    rows = order(512, BATCH)
    return scanned(loss_fn, optax.adam(1e-3), params, {}, (inputs, labels), rows, chunk=chunk)


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
