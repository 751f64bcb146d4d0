"""Variants of the small CNN: 28x28 images, batch 64, Adam.

python small_cnn.py jaxtl|hand|naive|torch all|sharded|frozen|cached

Parts: everything trains; the same on two CPU devices (PyTorch: two threads, as always); the
convolutions are frozen and computed again at each step; their outputs are computed once.
"""

import sys

import numpy as np
from duel import serve
from plain import convolve, dense, layer, native_convolve, order, pool, scale, scanned, to_torch

N, BATCH, MICRO, DEVICES = 4096, 64, 4, 2
CONVOLUTIONS = ("conv_0", "conv_1", "conv_2")


def examples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, 28, 28, 1), np.uint8)
    return images, rng.integers(0, 10, N)


def parameters() -> dict:
    rng = np.random.default_rng(1)
    shapes = {"conv_0": (3, 3, 1, 32), "conv_1": (3, 3, 32, 64), "conv_2": (3, 3, 64, 64)}
    backbone = {name: layer(rng, *shape) for name, shape in shapes.items()}
    backbone["dense_0"] = layer(rng, 576, 64)
    return {"backbone": backbone, "heads": {"digit": layer(rng, 64, 10)}}


def layers() -> dict:
    params = parameters()
    return {**params["backbone"], "head": params["heads"]["digit"]}


def stage(part: str, num_steps: int = 10**9):
    import optax

    from jaxtl import data, models
    from jaxtl.methods import transfer
    from jaxtl.plan import Method, Stage, labelled

    model = models.conv_net({"digit": models.classes(10)}, padding="VALID")
    adam = optax.adam(1e-3)
    method = transfer.full(adam)
    if part in ("frozen", "cached"):
        method = transfer.partial(adam, freeze=("backbone/conv_.*",))
        method = Method(**{**vars(method), "fresh_frozen": True})
    domain = labelled(data.arrays(*examples()), "digit")
    return Stage(
        "small_cnn", model, method, domains=[domain], batch_size=BATCH, num_steps=num_steps
    )


def jaxtl(part: str):
    """Our step, one seed, the loop as `jaxtl.train.loop` drives it."""
    from ours import ours

    mesh = f"data={DEVICES}" if part == "sharded" else ""
    return ours(stage(part), cached=part == "cached", mesh=mesh, params=parameters())


def hand(part: str):
    """The best plain JAX we know: scanned steps; trained convolutions as patches + dot, in
    micro-batches; frozen ones by XLA.
    """
    import jax
    import jax.numpy as jnp
    import optax

    frozen, mesh = part in ("frozen", "cached"), None
    micro = 1 if frozen else MICRO
    if part == "sharded":
        jax.config.update("jax_num_cpu_devices", DEVICES)
        mesh = jax.make_mesh((DEVICES,), ("data",), (jax.sharding.AxisType.Auto,))
        micro = MICRO // DEVICES

    conv = native_convolve if frozen else convolve

    @jax.jit
    def features(layers, x):
        x = pool(jax.nn.relu(conv(x, layers["conv_0"])))
        x = pool(jax.nn.relu(conv(x, layers["conv_1"])))
        return jax.nn.relu(conv(x, layers["conv_2"])).reshape(len(x), -1)

    def loss_fn(trainable, fixed, batch):
        layers, (x, labels) = {**trainable, **fixed}, batch
        x = x if part == "cached" else features(layers, x)
        logits = dense(jax.nn.relu(dense(x, layers["dense_0"])), layers["head"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    trainable, fixed, (images, labels) = layers(), {}, examples()
    if frozen:
        fixed = {name: trainable.pop(name) for name in CONVOLUTIONS}
    if part == "cached":
        parts = np.split(images, N // BATCH)
        images = np.concatenate([features(fixed, scale(jnp.asarray(x))) for x in parts])
        fixed = {}
    data, rows = (images, labels), order(N, BATCH)
    return scanned(loss_fn, optax.adam(1e-3), trainable, fixed, data, rows, micro, mesh=mesh)


def naive(part: str):
    """Ordinary Flax: nn.Conv, all gradients, multi_transform, NumPy batches, a float each step."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for i, width in enumerate((32, 64, 64)):
                x = nn.relu(nn.Conv(width, (3, 3), padding="VALID", name=f"conv_{i}")(x))
                x = nn.max_pool(x, (2, 2), (2, 2)) if i < 2 else x
            x = nn.relu(nn.Dense(64, name="dense_0")(x.reshape(len(x), -1)))
            return nn.Dense(10, name="head")(x)

    images, labels = examples()
    images = (images / 255).astype(np.float32)
    net, params = Net(), jax.tree.map(jnp.asarray, layers())
    tx = optax.adam(1e-3)
    if part == "frozen":
        groups = {name: "frozen" if name in CONVOLUTIONS else "train" for name in params}
        tx = optax.multi_transform({"train": tx, "frozen": optax.set_to_zero()}, groups)
    opt_state = tx.init(params)

    @jax.jit
    def step_fn(params, opt_state, x, y):
        def loss_fn(params):
            logits = net.apply({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    rows_of, step = order(N, BATCH), 0

    def run(units: int) -> float:
        nonlocal params, opt_state, step
        for _ in range(units):
            rows = rows_of[step % len(rows_of)]
            batch = jnp.asarray(images[rows]), jnp.asarray(labels[rows])
            params, opt_state, loss = step_fn(params, opt_state, *batch)
            value = float(loss)
            step += 1
        return value

    return run


def torch(part: str):
    """PyTorch eager, two threads, data resident."""
    import torch
    from torch import nn

    images, labels = examples()
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255
    labels, made = torch.from_numpy(labels), layers()
    convs = [to_torch(made[name]) for name in CONVOLUTIONS]
    features = nn.Sequential(
        *(convs[0], nn.ReLU(), nn.MaxPool2d(2), convs[1], nn.ReLU(), nn.MaxPool2d(2)),
        *(convs[2], nn.ReLU(), nn.Flatten()),
    )
    top = nn.Sequential(to_torch(made["dense_0"], (3, 3, 64)), nn.ReLU(), to_torch(made["head"]))
    net = nn.Sequential(features, top)
    if part in ("frozen", "cached"):
        features.requires_grad_(False)
    if part == "cached":
        with torch.no_grad():
            inputs = torch.cat([features(x) for x in inputs.split(BATCH)])
        net = top
    adam = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 1e-3)
    rows_of, step = torch.from_numpy(order(N, BATCH)), 0

    def run(units: int) -> float:
        nonlocal step
        for _ in range(units):
            rows = rows_of[step % len(rows_of)]
            adam.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(net(inputs[rows]), labels[rows])
            loss.backward()
            adam.step()
            step += 1
        return loss.item()

    return run


if __name__ == "__main__":
    variant, part = sys.argv[1:]
    serve({"jaxtl": jaxtl, "hand": hand, "naive": naive, "torch": torch}[variant](part))
