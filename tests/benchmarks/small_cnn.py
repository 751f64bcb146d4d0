"""Variants of the small CNN: 28x28 images, batch 64, Adam; `all` trains, or convolutions frozen.

python small_cnn.py jaxtl|hand|naive|torch all|frozen
"""

import functools
import sys

import numpy as np
from duel import serve

N, BATCH, CHUNK, MICRO = 4096, 64, 16, 4


def examples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, 28, 28, 1), np.uint8)
    return images, rng.integers(0, 10, N)


def jaxtl(frozen: bool):
    """Our step, one seed, the loop as `jaxtl.train.loop` drives it."""
    import jax
    import jax.numpy as jnp
    import optax

    from jaxtl import data, models
    from jaxtl.data.batches import index_block
    from jaxtl.methods import transfer
    from jaxtl.plan import Method, Stage, labelled
    from jaxtl.train.loop import compile_stage, start
    from jaxtl.train.options import RunOptions
    from jaxtl.train.setup import resolve
    from jaxtl.train.step import CARRIED

    images, labels = examples()
    model = models.conv_net({"digit": models.classes(10)}, padding="VALID")
    adam = optax.adam(1e-3)
    method = transfer.full(adam)
    if frozen:
        method = transfer.partial(adam, freeze=("backbone/conv_.*",))
        method = Method(**{**vars(method), "fresh_frozen": True})
    domain = labelled(data.arrays(images, labels), "digit")
    stage = Stage("small_cnn", model, method, [domain], BATCH, 10**9)
    setup = resolve(stage, None)
    full = start(setup, (0,), None)
    schedule, dispatch, feed, streams = compile_stage(setup, (0,), full, RunOptions())
    print(schedule, file=sys.stderr)
    carry = {name: full[name] for name in CARRIED}
    step, seeds = 0, jnp.asarray([0])

    def run(units: int) -> None:
        nonlocal carry, step
        end = step + units
        while step < end:
            count = min(schedule.steps, end - step)
            block = index_block(streams, step, schedule.steps, BATCH)
            carry, metrics = dispatch(
                carry, full["frozen"], feed, seeds, block, np.int32(step), np.int32(count)
            )
            step += count
        jax.block_until_ready((carry, metrics))

    return run


def hand(frozen: bool):
    """The best plain JAX we know: patches + dot, micro-batches, scanned steps."""
    import jax
    import jax.numpy as jnp
    import optax

    images, labels = map(jnp.asarray, examples())

    def convolve(x, kernel, bias):
        height, width = x.shape[1] - 2, x.shape[2] - 2
        views = [x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        return jnp.concatenate(views, -1) @ kernel.reshape(-1, kernel.shape[-1]) + bias

    @jax.custom_vjp
    def pool(x):
        return pool_forward(x)[0]

    def windows(x):
        n, height, width, channels = x.shape
        x = x[:, : height // 2 * 2, : width // 2 * 2]
        return x.reshape(n, height // 2, 2, width // 2, 2, channels)

    def pool_forward(x):
        y = windows(x).max((2, 4))
        return y, (x, y)

    def pool_backward(saved, g):
        x, y = saved
        hit = windows(x) == y[:, :, None, :, None]
        g = jnp.where(hit, g[:, :, None, :, None], 0)
        n, height, _, width, _, channels = g.shape
        g = g.reshape(n, height * 2, width * 2, channels)
        pads = ((0, 0), (0, x.shape[1] - height * 2), (0, x.shape[2] - width * 2), (0, 0))
        return (jnp.pad(g, pads),)

    pool.defvjp(pool_forward, pool_backward)

    def logits_of(convs, dense, x):
        x = pool(jax.nn.relu(convolve(x, *convs[0])))
        x = pool(jax.nn.relu(convolve(x, *convs[1])))
        x = jax.nn.relu(convolve(x, *convs[2])).reshape(len(x), -1)
        return jax.nn.relu(x @ dense[0][0] + dense[0][1]) @ dense[1][0] + dense[1][1]

    def layer(key, *shape):
        scale = np.prod(shape[:-1]) ** -0.5
        return jax.random.normal(key, shape) * scale, jnp.zeros(shape[-1])

    keys = jax.random.split(jax.random.key(0), 5)
    convs = [
        layer(keys[0], 3, 3, 1, 32),
        layer(keys[1], 3, 3, 32, 64),
        layer(keys[2], 3, 3, 64, 64),
    ]
    dense = [layer(keys[3], 576, 64), layer(keys[4], 64, 10)]
    trainable, fixed = (dense, convs) if frozen else ((convs, dense), None)
    tx = optax.adam(1e-3)

    def loss_fn(trainable, fixed, x, y):
        conv, head = (fixed, trainable) if frozen else trainable
        losses = optax.softmax_cross_entropy_with_integer_labels(logits_of(conv, head, x), y)
        return losses.mean()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def steps(trainable, opt_state, fixed, images, labels, index):
        def one(carry, rows):
            trainable, opt_state = carry
            x = images[rows].astype(jnp.float32) / 255
            y = labels[rows]

            def part(total, xs):
                value = jax.value_and_grad(loss_fn)(trainable, fixed, *xs)
                return jax.tree.map(jnp.add, total, value), None

            zeros = (0.0, jax.tree.map(jnp.zeros_like, trainable))
            cut = (x.reshape(MICRO, -1, *x.shape[1:]), y.reshape(MICRO, -1))
            (loss, grads), _ = jax.lax.scan(part, zeros, cut)
            grads = jax.tree.map(lambda g: g / MICRO, grads)
            updates, opt_state = tx.update(grads, opt_state, trainable)
            return (optax.apply_updates(trainable, updates), opt_state), loss / MICRO

        return jax.lax.scan(one, (trainable, opt_state), index)

    carry = (trainable, tx.init(trainable))
    order, step = np.random.default_rng(0).permutation(N).reshape(-1, BATCH), 0

    def run(units: int) -> None:
        nonlocal carry, step
        for _ in range(-(-units // CHUNK)):
            index = order[(step + np.arange(CHUNK)) % len(order)]
            carry, losses = steps(*carry, fixed, images, labels, index)
            step += CHUNK
        jax.block_until_ready((carry, losses))

    return run


def naive(frozen: bool):
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
    net = Net()
    params = net.init(jax.random.key(0), images[:1])["params"]
    tx = optax.adam(1e-3)
    if frozen:
        groups = {name: "frozen" if name.startswith("conv") else "train" for name in params}
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

    order, step = np.random.default_rng(0).permutation(N).reshape(-1, BATCH), 0

    def run(units: int) -> None:
        nonlocal params, opt_state, step
        for _ in range(units):
            rows = order[step % len(order)]
            batch = jnp.asarray(images[rows]), jnp.asarray(labels[rows])
            params, opt_state, loss = step_fn(params, opt_state, *batch)
            float(loss)
            step += 1

    return run


def torch(frozen: bool):
    """PyTorch eager, two threads, data resident."""
    import torch
    from torch import nn

    images, labels = examples()
    images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255
    labels = torch.from_numpy(labels)
    net = nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10)),
    )
    if frozen:
        for layer in net[:8]:
            layer.requires_grad_(False)
    adam = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 1e-3)
    order, step = torch.randperm(N).reshape(-1, BATCH), 0

    def run(units: int) -> None:
        nonlocal step
        for _ in range(units):
            rows = order[step % len(order)]
            adam.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
            adam.step()
            step += 1

    return run


if __name__ == "__main__":
    variant, part = sys.argv[1:]
    serve({"jaxtl": jaxtl, "hand": hand, "naive": naive, "torch": torch}[variant](part == "frozen"))
