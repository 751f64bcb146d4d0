"""The plain JAX and PyTorch that ours is measured against: layers, weights, a scanned loop."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

CHUNK = 16


def order(n: int, batch: int, domain: int = 0) -> np.ndarray:
    """[n // batch, batch] int32: the rows that seed 0 of ours draws in its first epoch."""
    rows = np.arange(n, dtype=np.int32)
    rows = np.random.default_rng((0, domain, 0)).permutation(rows)
    return rows[: n // batch * batch].reshape(-1, batch)


def layer(rng: np.random.Generator, *shape: int) -> dict[str, np.ndarray]:
    """{"kernel": [*shape], "bias": [shape[-1]]} float32, as linen names them."""
    kernel = rng.normal(size=shape) * math.prod(shape[:-1]) ** -0.5
    return {"kernel": kernel.astype(np.float32), "bias": np.zeros(shape[-1], np.float32)}


def convolve(x, layer):
    """A "VALID" convolution, as patches and one dot: [n, h, w, c] -> [n, h - k + 1, ..., out]."""
    import jax.numpy as jnp

    kernel = layer["kernel"]
    k = kernel.shape[0]
    height, width = x.shape[1] - k + 1, x.shape[2] - k + 1
    views = [x[:, i : i + height, j : j + width] for i in range(k) for j in range(k)]
    patches = jnp.concatenate(views, -1).reshape(-1, k * k * kernel.shape[2])
    outputs = patches @ kernel.reshape(-1, kernel.shape[-1])
    return outputs.reshape(len(x), height, width, -1) + layer["bias"]


def native_convolve(x, layer):
    """The same by XLA's own convolution, the faster one where no gradient is taken."""
    import jax

    layout = ("NHWC", "HWIO", "NHWC")
    outputs = jax.lax.conv_general_dilated(
        x, layer["kernel"], (1, 1), "VALID", dimension_numbers=layout
    )
    return outputs + layer["bias"]


def dense(x, layer):
    return x @ layer["kernel"] + layer["bias"]


def _windows(x):
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, height // 2, 2, width // 2, 2, channels)


@functools.cache
def _pool() -> Callable:
    import jax
    import jax.numpy as jnp

    def forward(x):
        y = _windows(x).max((2, 4))
        return y, (x, y)

    def backward(saved, g):
        x, y = saved
        g = jnp.where(_windows(x) == y[:, :, None, :, None], g[:, :, None, :, None], 0)
        n, height, _, width, _, channels = g.shape
        g = g.reshape(n, height * 2, width * 2, channels)
        pads = ((0, 0), (0, x.shape[1] - height * 2), (0, x.shape[2] - width * 2), (0, 0))
        return (jnp.pad(g, pads),)

    pool = jax.custom_vjp(lambda x: forward(x)[0])
    pool.defvjp(forward, backward)
    return pool


def pool(x):
    """Max pooling by 2; every maximum of a window gets its gradient."""
    return _pool()(x)


def scale(x):
    """uint8 -> float32 in [0, 1]; others as they are."""
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 else x


def take(data: Any, rows: Any) -> Any:
    """The rows of all arrays, images scaled."""
    import jax

    return jax.tree.map(lambda leaf: scale(leaf[rows]), data)


def scanned(
    loss_fn: Callable,
    tx: Any,
    params: Any,
    fixed: Any,
    data: Any,
    rows: np.ndarray,
    micro: int = 1,
    gather: Callable = take,
    mesh: Any = None,
    chunk: int = CHUNK,
) -> Callable[[int], float]:
    """run(units) of training steps, `chunk` to a call; returns the first loss of the last call.

    Args:
        loss_fn: (params, fixed, batch) -> loss [].
        tx: optax transformation of `params`.
        fixed: what the loss reads besides.
        data: arrays [n, ...], on the device.
        rows: [steps, batch, ...] of each step, used over and over.
        micro: parts of a batch whose losses and gradients are averaged.
        gather: (data, rows [batch, ...]) -> batch.
        mesh: its axis `data` splits each part of a batch.
    """
    import jax
    import jax.numpy as jnp
    import optax
    from jax.sharding import NamedSharding, PartitionSpec

    def part_of(data, rows):
        batch = gather(data, rows)
        if mesh is None:
            return batch
        return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec("data")))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def steps(params, opt_state, fixed, data, rows):
        def one(carry, rows):
            params, opt_state = carry

            def part(total, rows):
                value = jax.value_and_grad(loss_fn)(params, fixed, part_of(data, rows))
                return jax.tree.map(jnp.add, total, value), None

            if micro == 1:
                loss, grads = jax.value_and_grad(loss_fn)(params, fixed, part_of(data, rows))
            else:
                zeros = (0.0, jax.tree.map(jnp.zeros_like, params))
                total, _ = jax.lax.scan(part, zeros, rows.reshape(micro, -1, *rows.shape[1:]))
                loss, grads = jax.tree.map(lambda leaf: leaf / micro, total)
            updates, opt_state = tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        return jax.lax.scan(one, (params, opt_state), rows)

    params, fixed, data = jax.tree.map(jnp.asarray, (params, fixed, data))
    carry = (params, jax.jit(tx.init)(params))
    if mesh is not None:
        carry, fixed, data = jax.device_put(
            (carry, fixed, data), NamedSharding(mesh, PartitionSpec())
        )
    step = 0

    def run(units: int) -> float:
        nonlocal carry, step
        for _ in range(-(-units // chunk)):
            index = rows[(step + np.arange(chunk)) % len(rows)]
            carry, losses = steps(*carry, fixed, data, index)
            step += chunk
        jax.block_until_ready(carry)
        return float(losses[0])

    return run


def by_layer(leaves: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """{path: leaf} -> {path of the layer: {name: leaf}}."""
    layers = {}
    for path, leaf in leaves.items():
        layer, _, name = path.rpartition("/")
        layers.setdefault(layer, {})[name] = leaf
    return layers


def repeated(forward: Callable, batches: Sequence) -> Callable[[int], float]:
    """run(units) of batch -> NumPy features; returns the mean square of those of the first."""

    def run(units: int) -> float:
        features = [forward(batches[i % len(batches)]) for i in range(units)]
        return float((features[0] ** 2).mean())

    return run


def probed(
    forward: Callable, batches: Sequence, train: Callable[[int], float], every: int
) -> Callable[[int], float]:
    """run(units) of training steps, and of the features of all batches before each `every`."""

    def run(units: int) -> float:
        for done in range(0, units, every):
            for batch in batches:
                forward(batch)
            loss = train(min(every, units - done))
        return loss

    return run


def to_torch(layer: dict[str, np.ndarray], maps: tuple[int, int, int] | None = None):
    """The same layer in PyTorch.

    Args:
        maps: (height, width, channels) of the flattened maps that a dense layer reads.
    """
    import torch

    kernel, bias = (torch.from_numpy(layer[name].copy()) for name in ("kernel", "bias"))
    if kernel.ndim == 4:
        made = torch.nn.Conv2d(kernel.shape[2], kernel.shape[3], kernel.shape[0])
        kernel = kernel.permute(3, 2, 0, 1)
    else:
        made = torch.nn.Linear(*kernel.shape)
        if maps is not None:
            kernel = kernel.reshape(*maps, -1).permute(2, 0, 1, 3).reshape(len(kernel), -1)
        kernel = kernel.T
    made.weight.data.copy_(kernel)
    made.bias.data.copy_(bias)
    return made
