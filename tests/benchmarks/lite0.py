"""Variants of EfficientNet-Lite0 with its published weights.

python lite0.py jaxtl|hand|torch features_224|features_96|full|probe
python lite0.py jaxtl recomputed

Parts: the features of a batch, frozen; a step that trains everything, with live BatchNorm; steps of
a linear probe on frozen features, which every `PROBE` steps (10 epochs of 512 images) are computed
anew; the same with the features computed in every step. PyTorch does as timm does: eager,
channels_last, BatchNorm on its own.
"""

import functools
import sys
import time
from collections.abc import Callable

import numpy as np
from duel import serve
from plain import CHUNK, by_layer, dense, order, probed, repeated, scale, scanned

SIZES = {"features_224": (64, 16, 224), "features_96": (128, 32, 96), "full": (512, 16, 96)}
PROBE_SIZE = (512, 32, 96)
EPOCHS, CLASSES, RATE, MOMENTUM, FEATURE_BATCH = 10, 10, 1e-2, 0.9, 64
PROBE = EPOCHS * PROBE_SIZE[0] // PROBE_SIZE[1]
STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
"""(blocks, stride of the first) of stage_1, stage_2, ..."""
EPSILON, KEPT = 1e-3, 0.99


def size(part: str) -> tuple[int, int, int]:
    """(images, batch, pixels a side)."""
    return SIZES.get(part, PROBE_SIZE)


def examples(part: str) -> tuple[np.ndarray, np.ndarray]:
    rng, (n, _, side) = np.random.default_rng(0), size(part)
    return rng.integers(0, 256, (n, side, side, 3), np.uint8), rng.integers(0, CLASSES, n)


def batches(part: str) -> list[np.ndarray]:
    """Images whose features are computed together."""
    images, _ = examples(part)
    return np.split(images, len(images) // (size(part)[1] if part in SIZES else FEATURE_BATCH))


def stage(part: str):
    import optax
    from ours import Published

    from jaxtl import data, models, pretrained
    from jaxtl.methods import transfer
    from jaxtl.plan import Stage, labelled

    model = models.efficientnet_lite("lite0", {"kind": models.classes(CLASSES)})
    sgd = optax.sgd(RATE, MOMENTUM)
    method = transfer.full(sgd) if part == "full" else transfer.probe(sgd)
    domain = labelled(data.arrays(*examples(part)), "kind")
    names = pretrained.efficientnet_lite("lite0")
    weights = Published(pretrained.weights(pretrained.EFFICIENTNET_LITE0, names))
    return Stage(
        "lite0",
        model,
        method,
        domains=[domain],
        batch_size=size(part)[1],
        num_steps=10**9,
        weights=weights,
    )


def layers() -> dict[str, dict[str, np.ndarray]]:
    """{path of a layer: its parameters and statistics}, what all variants start from."""
    from ours import published

    return by_layer(published(stage("probe")))


def network(x, convolution: Callable):
    """Everything up to the pooling.

    Args:
        convolution: (x, path, stride, linear) -> x; with BatchNorm, and ReLU6 if not linear.
    """
    x = convolution(x, "backbone/stem", 2, False)
    for i, (depth, stride) in enumerate(STAGES):
        for j in range(depth):
            block, inputs = f"backbone/stage_{i + 1}/block_{j}", x
            if i:
                x = convolution(x, f"{block}/expand", 1, False)
            x = convolution(x, f"{block}/depthwise", 1 if j else stride, False)
            x = convolution(x, f"{block}/project", 1, True)
            x = x + inputs if j else x
    return convolution(x, "backbone/top", 1, False)


def pads(sides: tuple[int, int], window: int, stride: int) -> list[tuple[int, int]]:
    """TensorFlow's "SAME": (before, after) of each axis."""
    totals = [max((-(-n // stride) - 1) * stride + window - n, 0) for n in sides]
    return [(total // 2, total - total // 2) for total in totals]


def jaxtl(part: str):
    from ours import features, ours

    if part in ("full", "recomputed"):
        return ours(stage(part))
    forward = features(stage(part))
    if part == "probe":
        return probed(forward, batches(part), ours(stage(part), cached=True), PROBE)
    return repeated(forward, batches(part))


def convolve(x, kernel, stride: int):
    """1 x 1 and 3 x 3 convolutions as dots, depthwise ones as sums over taps."""
    import jax.numpy as jnp

    window, _, depth, width = kernel.shape

    def dot(x):  # in two dimensions; the gradient of the same in four is slower
        return (x.reshape(-1, x.shape[-1]) @ kernel.reshape(-1, width)).reshape(*x.shape[:3], width)

    if window == 1:
        return dot(x)
    sides = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), *pads(sides, window, stride), (0, 0)))
    rows, columns = (stride * (-(-n // stride) - 1) + 1 for n in sides)
    offsets = [(i, j) for i in range(window) for j in range(window)]
    taps = [x[:, i : i + rows : stride, j : j + columns : stride] for i, j in offsets]
    if depth == 1:
        return sum(tap * kernel[i, j, 0] for tap, (i, j) in zip(taps, offsets, strict=True))
    return dot(jnp.concatenate(taps, -1))


def hand(part: str):
    """The best plain JAX we know; BatchNorm is folded into the kernels where nothing trains."""
    import jax
    import jax.numpy as jnp
    import optax

    if part == "full":
        return hand_full()
    made, folded = layers(), {}
    head = made.pop("heads/kind")
    for path in [path for path in made if not path.endswith("/norm")]:
        norm = made[f"{path}/norm"]
        factor = norm["scale"] / np.sqrt(norm["var"] + EPSILON)
        kernel = jnp.asarray(made[path]["kernel"] * factor)
        folded[path] = kernel, jnp.asarray(norm["bias"] - norm["mean"] * factor)

    @jax.jit
    def features(folded, images):
        def convolution(x, path, stride, linear):
            kernel, bias = folded[path]
            x = convolve(x, kernel, stride) + bias
            return x if linear else jax.nn.relu6(x)

        return network(scale(images) * 2 - 1, convolution).mean((1, 2))

    def forward(images: np.ndarray) -> np.ndarray:
        return np.asarray(features(folded, images))

    if part != "probe":
        return repeated(forward, batches(part))

    def loss_fn(head, fixed, batch):
        x, labels = batch
        losses = optax.softmax_cross_entropy_with_integer_labels(dense(x, head), labels)
        return losses.mean()

    inputs = np.concatenate([forward(x) for x in batches(part)])
    data, rows = (inputs, examples(part)[1]), order(*size(part)[:2])
    train = scanned(loss_fn, optax.sgd(RATE, MOMENTUM), head, {}, data, rows)
    return probed(forward, batches(part), train, PROBE)


def hand_full():
    """Scanned steps, nearly twice as fast as one step a dispatch; variances as E[x^2] - E[x]^2."""
    import jax
    import jax.numpy as jnp
    import optax

    n, batch, _ = size("full")
    made, statistics = layers(), {}
    for path in [path for path in made if path.endswith("/norm")]:
        statistics[path] = made[path].pop("mean"), made[path].pop("var")
    sgd, rows_of, step = optax.sgd(RATE, MOMENTUM), order(n, batch), 0

    def loss_fn(params, statistics, images, labels):
        seen = {}

        def convolution(x, path, stride, linear):
            x, norm = convolve(x, params[path]["kernel"], stride), params[f"{path}/norm"]
            mean, square = x.mean((0, 1, 2)), (x * x).mean((0, 1, 2))
            var = jnp.maximum(square - mean * mean, 0)
            seen[f"{path}/norm"] = mean, var
            factor = norm["scale"] * jax.lax.rsqrt(var + EPSILON)
            x = (x - mean) * factor + norm["bias"]
            return x if linear else jax.nn.relu6(x)

        x = network(scale(images) * 2 - 1, convolution).mean((1, 2))
        losses = optax.softmax_cross_entropy_with_integer_labels(
            dense(x, params["heads/kind"]), labels
        )
        mixed = jax.tree.map(lambda old, new: KEPT * old + (1 - KEPT) * new, statistics, seen)
        return losses.mean(), mixed

    @functools.partial(jax.jit, donate_argnums=0)
    def steps(carry, images, labels, rows):
        def one(carry, rows):
            params, statistics, opt_state = carry
            (loss, statistics), grads = jax.value_and_grad(loss_fn, has_aux=True)(
                params, statistics, images[rows], labels[rows]
            )
            updates, opt_state = sgd.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), statistics, opt_state), loss

        return jax.lax.scan(one, carry, rows)

    params, statistics, data = jax.tree.map(jnp.asarray, (made, statistics, examples("full")))
    carry = params, statistics, jax.jit(sgd.init)(params)

    def run(units: int) -> float:
        nonlocal carry, step
        for _ in range(-(-units // CHUNK)):
            carry, losses = steps(carry, *data, rows_of[(step + np.arange(CHUNK)) % len(rows_of)])
            step += CHUNK
        jax.block_until_ready(carry)
        return float(losses[0])

    return run


def torch(part: str):
    import torch
    from torch.nn import functional

    live = part == "full"
    made = {
        path: {name: torch.from_numpy(leaf.copy()) for name, leaf in layer.items()}
        for path, layer in layers().items()
    }
    for layer in made.values():
        if "kernel" in layer and layer["kernel"].ndim == 4:
            kernel = layer["kernel"].permute(3, 2, 0, 1)
            layer["kernel"] = kernel.contiguous(memory_format=torch.channels_last)
    head = made["heads/kind"]
    chosen = made.values() if live else [head]
    trained = [x for layer in chosen for name, x in layer.items() if name not in ("mean", "var")]
    sgd = torch.optim.SGD((x.requires_grad_() for x in trained), RATE, MOMENTUM)

    def convolution(x, path, stride, linear):
        kernel, norm = made[path]["kernel"], made[f"{path}/norm"]
        (top, bottom), (left, right) = pads(x.shape[2:], kernel.shape[2], stride)
        even = top == bottom and left == right
        x = x if even else functional.pad(x, (left, right, top, bottom))
        groups = x.shape[1] // kernel.shape[1]
        padding = (top, left) if even else 0
        x = functional.conv2d(x, kernel, None, stride, padding, groups=groups)
        moments = norm["mean"], norm["var"], norm["scale"], norm["bias"]
        x = functional.batch_norm(x, *moments, live, 1 - KEPT, EPSILON)
        return x if linear else functional.relu6(x, inplace=True)

    def features(images):
        x = images.permute(0, 3, 1, 2).float() / 127.5 - 1  # channels last, as they were
        return network(x, convolution).mean((2, 3))

    def forward(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return features(torch.from_numpy(images)).numpy()

    if part.startswith("features"):
        return repeated(forward, batches(part))
    inputs, labels = (torch.from_numpy(x) for x in examples(part))
    if not live:
        inputs = torch.from_numpy(np.concatenate([forward(x) for x in batches(part)]))
    rows_of, step = torch.from_numpy(order(*size(part)[:2])), 0

    def run(units: int) -> float:
        nonlocal step
        for _ in range(units):
            rows = rows_of[step % len(rows_of)]
            sgd.zero_grad(set_to_none=True)
            x = features(inputs[rows]) if live else inputs[rows]
            logits = functional.linear(x, head["kernel"].T, head["bias"])
            loss = functional.cross_entropy(logits, labels[rows])
            loss.backward()
            sgd.step()
            step += 1
        return loss.item()

    return run if live else probed(forward, batches(part), run, PROBE)


if __name__ == "__main__":
    variant, part = sys.argv[1:]
    run = {"jaxtl": jaxtl, "hand": hand, "torch": torch}[variant](part)

    def of_one_epoch(units: int) -> float:
        """All epochs take the same time here, and together too long."""
        began = time.perf_counter()
        run(units // EPOCHS)
        return EPOCHS * (time.perf_counter() - began)

    serve(run, of_one_epoch if part == "recomputed" else None)
