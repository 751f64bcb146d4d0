"""Variants of 16 small models on the same features: 512 examples of 1280 numbers, batch 64, Adam.

python ensembles.py jaxtl|hand|hand_own|torch|torch_bmm linear|mlp

One unit is a step of all 16. `jaxtl` draws other batches for each of four seeds, and `hand_own` for
each model; `hand` and the two of PyTorch have one batch for all.
"""

import sys

import numpy as np
from duel import serve
from plain import dense, layer, order, scanned, to_torch

MODELS, N, BATCH, FEATURES, HIDDEN, CLASSES = 16, 512, 64, 1280, 64, 10
RATES = np.repeat(np.float32([1e-4, 3e-4, 1e-3, 3e-3]), 4)


def examples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, FEATURES)).astype(np.float32), rng.integers(0, CLASSES, N)


def parameters(kind: str) -> dict:
    """Of one model; all start from the same."""
    rng = np.random.default_rng(1)
    if kind == "linear":
        return {"heads": {"y": layer(rng, FEATURES, CLASSES)}}
    first = {"dense_0": layer(rng, FEATURES, HIDDEN)}
    return {"backbone": first, "heads": {"y": layer(rng, HIDDEN, CLASSES)}}


def jaxtl(kind: str):
    """A sweep of our engine: four seeds at four rates; the rates of a seed share its batches."""
    import optax
    from ours import swept

    from jaxtl import data, models
    from jaxtl.methods import transfer
    from jaxtl.plan import Stage, labelled

    heads = {"y": models.classes(CLASSES)}
    model = models.linear(heads) if kind == "linear" else models.mlp(heads, (HIDDEN,))
    domain = labelled(data.arrays(*examples()), "y")

    def stage(values):
        method = transfer.full(optax.adam(values["rate"]))
        return Stage(kind, model, method, domains=[domain], batch_size=BATCH, num_steps=10**9)

    rates = [float(rate) for rate in RATES[::4]]
    return swept(stage, "rate", rates, (0, 1, 2, 3), parameters(kind))


def hand(kind: str):
    """One batch for all models; the layer that reads it is one product for all of them."""
    import jax
    import jax.numpy as jnp
    import optax

    made = parameters(kind)
    wide = made["heads"]["y"] if kind == "linear" else made["backbone"]["dense_0"]
    params = {"first": {name: np.tile(leaf, MODELS) for name, leaf in wide.items()}}
    rates = {"first": dict.fromkeys(wide, np.repeat(RATES, len(wide["bias"])))}
    if kind == "mlp":
        params["y"] = {name: np.stack([leaf] * MODELS) for name, leaf in made["heads"]["y"].items()}
        rates["y"] = {"kernel": RATES[:, None, None], "bias": RATES[:, None]}

    def loss_fn(params, fixed, batch):
        x, labels = batch
        outputs = dense(x, params["first"]).reshape(BATCH, MODELS, -1)
        if kind == "mlp":
            outputs = jnp.einsum("bmi,mio->bmo", jax.nn.relu(outputs), params["y"]["kernel"])
            outputs = outputs + params["y"]["bias"]
        labels = jnp.broadcast_to(labels[:, None], outputs.shape[:2])
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
        return losses.mean(0).sum()  # the gradient of each model is that of its own loss

    def slow_down(updates, _):
        return jax.tree.map(lambda update, rate: -rate * update, updates, rates)

    tx = optax.chain(optax.scale_by_adam(), optax.stateless(slow_down))
    run = scanned(loss_fn, tx, params, {}, examples(), order(N, BATCH))
    return lambda units: run(units) / MODELS


def hand_own(kind: str):
    """`vmap` over models and their batches. (The rows are the same, but XLA cannot know it.)"""
    import jax
    import optax

    def loss_fn(params, fixed, batch):
        def one(params, batch):
            x, labels = batch
            if kind == "mlp":
                x = jax.nn.relu(dense(x, params["backbone"]["dense_0"]))
            logits = dense(x, params["heads"]["y"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return jax.vmap(one)(params, batch).sum()

    params = jax.tree.map(lambda leaf: np.stack([leaf] * MODELS), parameters(kind))
    rows = np.repeat(order(N, BATCH)[:, None], MODELS, 1)
    run = scanned(loss_fn, optax.adam(1e-3), params, {}, examples(), rows)
    return lambda units: run(units) / MODELS


def torch(kind: str):
    """One model after the other."""
    import torch
    from torch import nn

    made = parameters(kind)
    x, labels = (torch.from_numpy(array) for array in examples())

    def build():
        head = to_torch(made["heads"]["y"])
        if kind == "linear":
            return head
        return nn.Sequential(to_torch(made["backbone"]["dense_0"]), nn.ReLU(), head)

    nets = [build() for _ in range(MODELS)]
    adams = [
        torch.optim.Adam(net.parameters(), rate)
        for net, rate in zip(nets, RATES.tolist(), strict=True)
    ]
    rows_of, step = torch.from_numpy(order(N, BATCH)), 0

    def run(units: int) -> float:
        nonlocal step
        for _ in range(units):
            rows = rows_of[step % len(rows_of)]
            batch, wanted = x[rows], labels[rows]
            for net, adam in zip(nets, adams, strict=True):
                adam.zero_grad(set_to_none=True)
                loss = nn.functional.cross_entropy(net(batch), wanted)
                loss.backward()
                adam.step()
            step += 1
        return loss.item()

    return run


def torch_bmm(kind: str):
    """All models in one batched product for each layer, one Adam."""
    import torch

    made = parameters(kind)
    x, labels = (torch.from_numpy(array) for array in examples())
    layers = [made["heads"]["y"]]
    if kind == "mlp":
        layers.insert(0, made["backbone"]["dense_0"])
    stacked = [
        [torch.from_numpy(np.stack([leaf] * MODELS)).requires_grad_() for leaf in one.values()]
        for one in layers
    ]
    adam = torch.optim.Adam([leaf for one in stacked for leaf in one], 1e-3)
    rows_of, step = torch.from_numpy(order(N, BATCH)), 0

    def run(units: int) -> float:
        nonlocal step
        for _ in range(units):
            rows = rows_of[step % len(rows_of)]
            outputs = x[rows].expand(MODELS, -1, -1)
            adam.zero_grad(set_to_none=True)
            for i, (kernel, bias) in enumerate(stacked):
                outputs = torch.baddbmm(bias[:, None], outputs.relu() if i else outputs, kernel)
            wanted = labels[rows].repeat(MODELS)
            loss = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), wanted, reduction="sum")
            (loss / BATCH).backward()
            adam.step()
            step += 1
        return loss.item() / BATCH / MODELS

    return run


if __name__ == "__main__":
    variant, kind = sys.argv[1:]
    variants = (jaxtl, hand, hand_own, torch, torch_bmm)
    serve({v.__name__: v for v in variants}[variant](kind))
