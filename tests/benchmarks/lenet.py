"""Variants of domain adaptation steps: LeNet, 64 + 64 images 28x28, SGD with momentum.

python lenet.py jaxtl|hand|naive|torch dann|cdan|mkmmd

The source's labels train the classifier; what else is minimised pulls the domains together:

    dann    the features fool a discriminator 500-500-2 (Ganin et al., 2016)
    cdan    so does their outer product with the class probabilities, 5000-500-2 (Long et al., 2018)
    mkmmd   the squared MMD between the features under the sum of five Gaussian kernels whose
            bandwidths are 1/4, ..., 4 times the mean squared distance (Long et al., 2015)

Ours are `adapt.dann`, `adapt.cdan` and `adapt.dan`.
"""

import sys

import numpy as np
from duel import serve
from plain import convolve, dense, layer, order, pool, scale, scanned, to_torch

N, BATCH, MICRO, REVERSAL, RATE, MOMENTUM = 2048, 64, 8, 0.5, 1e-2, 0.9
WIDTHS = {"dann": 500, "cdan": 5000}
KERNELS = tuple(2.0**i for i in range(-2, 3))


def examples() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source images and labels, target images."""
    rng = np.random.default_rng(0)
    source, target = rng.integers(0, 256, (2, N, 28, 28, 1), np.uint8)
    return source, rng.integers(0, 10, N), target


def rows_of() -> np.ndarray:
    """[steps, batch, domains]."""
    return np.stack([order(N, BATCH, domain) for domain in range(2)], -1)


def parameters(method: str) -> dict:
    rng = np.random.default_rng(1)
    params = {
        "backbone": {
            "conv_0": layer(rng, 5, 5, 1, 20),
            "conv_1": layer(rng, 5, 5, 20, 50),
            "dense_0": layer(rng, 800, 500),
        },
        "heads": {"digit": layer(rng, 500, 10)},
    }
    if method in WIDTHS:
        hidden = layer(rng, WIDTHS[method], 500)
        params["discriminator"] = {"dense_0": hidden, "output": layer(rng, 500, 2)}
    return params


def reverse(x):
    """x with the gradient times -REVERSAL."""
    import jax

    return -REVERSAL * x + jax.lax.stop_gradient((1 + REVERSAL) * x)


def joint(features, logits):
    """[..., n], [..., classes] -> [..., n * classes], a constant in the probabilities."""
    import jax

    classes = jax.lax.stop_gradient(jax.nn.softmax(logits))
    return (features[..., :, None] * classes[..., None, :]).reshape(*classes.shape[:-1], -1)


def gram_distances(x):
    """Squared distances [n, n] between the rows of x [n, features]."""
    import jax.numpy as jnp

    norms = (x**2).sum(-1)
    return jnp.maximum(norms[:, None] + norms[None] - 2 * x @ x.T, 0)


def difference_distances(x):
    return ((x[:, None] - x[None]) ** 2).sum(-1)


def gap(method: str, features, logits, discriminate=None, distances=gram_distances):
    """What pulls the domains together.

    Args:
        features: [batch, domains, 500].
        logits: [batch, domains, 10].
        discriminate: [..., n] -> [..., domains].
        distances: [n, features] -> [n, n].
    """
    import jax
    import jax.numpy as jnp
    import optax

    if method == "mkmmd":
        n = len(features)
        squares = distances(jnp.concatenate([features[:, 0], features[:, 1]]))
        bandwidth = jax.lax.stop_gradient(squares.sum()) / (2 * n * (2 * n - 1))
        kernel = sum(jnp.exp(-squares / (bandwidth * factor)) for factor in KERNELS)
        blocks = kernel[:n, :n] + kernel[n:, n:] - kernel[:n, n:] - kernel[n:, :n]
        return blocks.mean()
    inputs = features if method == "dann" else joint(features, logits)
    answers = discriminate(reverse(inputs))
    domain = jnp.broadcast_to(jnp.arange(2), answers.shape[:2])
    return optax.softmax_cross_entropy_with_integer_labels(answers, domain).mean()


def jaxtl(method: str):
    """The library's method on our LeNet; it averages kernels: its weight is their number."""
    import optax
    from ours import ours

    from jaxtl import data, losses, models
    from jaxtl.methods import adapt
    from jaxtl.plan import Stage, labelled, unlabelled

    tx = optax.sgd(RATE, MOMENTUM)
    adversary = {"reversal": REVERSAL, "discriminator": models.mlp_head((500,), 2)}
    if method == "dann":
        adapted = adapt.dann(tx, **adversary)
    elif method == "cdan":
        adapted = adapt.cdan(tx, **adversary)
    else:
        rule = losses.mean_bandwidths(KERNELS)
        adapted = adapt.dan(tx, weight=float(len(KERNELS)), bandwidths=rule)
    source, labels, target = examples()
    domains = [
        labelled(data.arrays(source, labels), "digit"),
        unlabelled(data.arrays(target, np.zeros(N, int)), "digit"),
    ]
    model = models.lenet({"digit": models.classes(10)})
    return ours(
        Stage(method, model, adapted, domains=domains, batch_size=BATCH, num_steps=10**9),
        params=parameters(method),
    )


def hand(method: str):
    """Patches + dot, one forward pass for both domains, micro-batches unless they are coupled."""
    import jax
    import optax

    def gather(data, rows):
        source, labels, target = data
        return scale(source[rows[:, 0]]), labels[rows[:, 0]], scale(target[rows[:, 1]])

    def loss_fn(params, fixed, batch):
        source, labels, target = batch
        body, domain = params["backbone"], params.get("discriminator")
        x = jax.numpy.concatenate([source, target])
        x = jax.nn.relu(pool(convolve(x, body["conv_0"])))
        x = jax.nn.relu(pool(convolve(x, body["conv_1"])))
        features = jax.nn.relu(dense(x.reshape(len(x), -1), body["dense_0"]))
        logits = dense(features, params["heads"]["digit"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits[: len(source)], labels)
        features, logits = (
            x.reshape(2, len(source), -1).swapaxes(0, 1) for x in (features, logits)
        )

        def discriminate(x):
            return dense(jax.nn.relu(dense(x, domain["dense_0"])), domain["output"])

        return losses.mean() + gap(method, features, logits, discriminate)

    micro = 1 if method == "mkmmd" else MICRO
    tx, params = optax.sgd(RATE, MOMENTUM), parameters(method)
    return scanned(loss_fn, tx, params, {}, examples(), rows_of(), micro, gather)


def naive(method: str):
    """Ordinary Flax: nn.Conv, nn.max_pool, one step a call, NumPy batches, a float each step."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for i, width in enumerate((20, 50)):
                x = nn.Conv(width, (5, 5), padding="VALID", name=f"conv_{i}")(x)
                x = nn.relu(nn.max_pool(x, (2, 2), (2, 2)))
            x = nn.relu(nn.Dense(500, name="dense_0")(x.reshape(len(x), -1)))
            return x, nn.Dense(10, name="head")(x)

    class Discriminator(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2, name="output")(nn.relu(nn.Dense(500, name="dense_0")(x)))

    source, labels, target = examples()
    source, target = ((x / 255).astype(np.float32) for x in (source, target))
    made = parameters(method)
    body = {**made["backbone"], "head": made["heads"]["digit"]}
    params = jax.tree.map(jnp.asarray, {"net": body, "discriminator": made.get("discriminator")})
    tx = optax.sgd(RATE, MOMENTUM)
    opt_state = tx.init(params)

    @jax.jit
    def step_fn(params, opt_state, source, labels, target):
        def loss_fn(params):
            outputs = [Net().apply({"params": params["net"]}, x) for x in (source, target)]
            features, logits = (jnp.stack(pair, 1) for pair in zip(*outputs, strict=True))
            losses = optax.softmax_cross_entropy_with_integer_labels(logits[:, 0], labels)

            def discriminate(x):
                return Discriminator().apply({"params": params["discriminator"]}, x)

            between = gap(method, features, logits, discriminate, difference_distances)
            return losses.mean() + between

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    rows, step = rows_of(), 0

    def run(units: int) -> float:
        nonlocal params, opt_state, step
        for _ in range(units):
            here, there = rows[step % len(rows)].T
            batch = (jnp.asarray(x) for x in (source[here], labels[here], target[there]))
            params, opt_state, loss = step_fn(params, opt_state, *batch)
            value = float(loss)
            step += 1
        return value

    return run


def torch(method: str):
    """PyTorch eager, two threads, data resident, both domains in one forward pass."""
    import torch
    from torch import nn

    source, labels, target = (torch.from_numpy(x) for x in examples())
    source, target = (x.permute(0, 3, 1, 2).contiguous().float() / 255 for x in (source, target))
    made = parameters(method)
    body, domain = made["backbone"], made.get("discriminator")
    net = nn.Sequential(
        *(to_torch(body["conv_0"]), nn.MaxPool2d(2), nn.ReLU()),
        *(to_torch(body["conv_1"]), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()),
        *(to_torch(body["dense_0"], (4, 4, 50)), nn.ReLU()),
    )
    modules = [net, head := to_torch(made["heads"]["digit"])]
    if domain is not None:
        discriminator = nn.Sequential(
            to_torch(domain["dense_0"]), nn.ReLU(), to_torch(domain["output"])
        )
        modules.append(discriminator)
    sgd = torch.optim.SGD((p for m in modules for p in m.parameters()), RATE, MOMENTUM)
    domains = torch.arange(2).repeat_interleave(BATCH)

    class Reverse(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            return -REVERSAL * gradient

    def between(features, logits):
        if method == "mkmmd":
            n = BATCH
            squares = ((features[None] - features[:, None]) ** 2).sum(2)
            bandwidth = squares.detach().sum() / (2 * n * (2 * n - 1))
            kernel = sum(torch.exp(-squares / (bandwidth * factor)) for factor in KERNELS)
            blocks = kernel[:n, :n] + kernel[n:, n:] - kernel[:n, n:] - kernel[n:, :n]
            return blocks.mean()
        if method == "cdan":
            classes = logits.detach().softmax(1)
            features = torch.bmm(features[:, :, None], classes[:, None]).flatten(1)
        return nn.functional.cross_entropy(discriminator(Reverse.apply(features)), domains)

    rows, step = torch.from_numpy(rows_of()), 0

    def run(units: int) -> float:
        nonlocal step
        for _ in range(units):
            here, there = rows[step % len(rows)].T
            sgd.zero_grad(set_to_none=True)
            features = net(torch.cat([source[here], target[there]]))
            logits = head(features)
            task = nn.functional.cross_entropy(logits[:BATCH], labels[here])
            loss = task + between(features, logits)
            loss.backward()
            sgd.step()
            step += 1
        return loss.item()

    return run


if __name__ == "__main__":
    variant, method = sys.argv[1:]
    serve({"jaxtl": jaxtl, "hand": hand, "naive": naive, "torch": torch}[variant](method))
