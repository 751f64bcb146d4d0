"""Meta-training steps of MAML: one inner step, second order, Adam outside.

python maml.py jaxtl|torch mlp|conv
python maml.py memory mlp|conv

Parts: an MLP on 25 sinusoids of 10 + 10 points; four convolutions with pooling on 8 tasks of 5
ways, 1 shot and 5 queries. PyTorch goes through the tasks in a loop, as public code does. `memory`
prints XLA's temporary memory of a compiled meta-gradient, with the inner steps kept and with them
computed again, as a line of JSON: {number of inner steps: [MB kept, MB computed again]}.
"""

import json
import sys

import numpy as np
from duel import serve
from plain import layer, scanned, to_torch

SIZES = {"mlp": (25, 10, 10), "conv": (8, 5, 25)}
"""Tasks of a step, rows of the support, queries of a task."""
INNER_STEPS = {"mlp": (1, 5, 10, 20, 50), "conv": (1, 5, 10)}
MANY, WIDTH, WAYS, RATE = 64, 32, 5, 0.01


def tasks(part: str) -> tuple[np.ndarray, np.ndarray]:
    """(inputs [steps, tasks, rows, ...], labels [steps, tasks, rows])."""
    rng, (count, shots, queries) = np.random.default_rng(0), SIZES[part]
    lead = (MANY, count, shots + queries)
    if part == "conv":
        labels = np.tile(np.arange(WAYS, dtype=np.int32), (*lead[:2], lead[2] // WAYS))
        return rng.normal(size=(*lead, 28, 28, 1)).astype(np.float32), labels
    inputs = rng.uniform(-5, 5, (*lead, 1))
    heights, phases = rng.uniform(0.1, 5, lead[:2]), rng.uniform(0, np.pi, lead[:2])
    labels = heights[..., None] * np.sin(inputs[..., 0] - phases[..., None])
    return inputs.astype(np.float32), labels.astype(np.float32)


def parameters(part: str) -> dict:
    rng = np.random.default_rng(1)
    if part == "mlp":
        backbone = {"dense_0": layer(rng, 1, 40), "dense_1": layer(rng, 40, 40)}
        return {"backbone": backbone, "heads": {"task": layer(rng, 40, 1)}}
    widths = (1, WIDTH, WIDTH, WIDTH)
    backbone = {f"conv_{i}": layer(rng, 3, 3, width, WIDTH) for i, width in enumerate(widths)}
    return {"backbone": backbone, "heads": {"task": layer(rng, WIDTH, WAYS)}}


def jaxtl(part: str):
    """Steps of Adam, scanned."""
    import optax

    loss_fn, steps = meta_loss(part), np.arange(MANY)
    return scanned(loss_fn, optax.adam(1e-3), parameters(part), {}, tasks(part), steps)


def memory(part: str) -> dict[int, list[float]]:
    import jax

    batch = jax.tree.map(lambda leaf: leaf[0], tasks(part))

    def megabytes(num_steps: int, remat: bool) -> float:
        gradient = jax.jit(jax.grad(meta_loss(part, num_steps=num_steps, remat=remat)))
        compiled = gradient.lower(parameters(part), {}, batch).compile()
        return round(compiled.memory_analysis().temp_size_in_bytes / 2**20, 2)

    return {k: [megabytes(k, remat) for remat in (False, True)] for k in INNER_STEPS[part]}


def meta_loss(part: str, **inner):
    """The loss of `fewshot.episodic`, (params, fixed, (inputs, labels)) -> []."""
    import jax
    import optax

    from jaxtl import models
    from jaxtl.methods import fewshot
    from jaxtl.models.conv_net import relu_max_pool
    from jaxtl.models.layers import Conv
    from jaxtl.plan import State, make_batch

    if part == "mlp":
        model = models.mlp({"task": models.regression()}, (40, 40))
    else:
        convs = [Conv(WIDTH, (3, 3)) for _ in range(4)]
        blocks = [models.Block(f"conv_{i}", conv, relu_max_pool) for i, conv in enumerate(convs)]
        model = models.from_blocks(blocks, {"task": models.classes(WAYS)})
    _, shots, queries = SIZES[part]
    roles = ("support",) * shots + ("query",) * queries
    learner = fewshot.maml(optax.sgd(RATE), **inner)
    loss = fewshot.episodic(learner, optax.adam(1e-3)).updates[0].loss

    def loss_fn(params, fixed, batch):
        episodes = make_batch(batch[0], {"task": batch[1]}, roles=roles)
        return loss(model, params, State({}), episodes, jax.random.key(0), 0)[0]

    return loss_fn


def torch(part: str):
    """PyTorch eager, task after task; threads only cost time where matrices are small."""
    import torch
    from torch import nn
    from torch.func import functional_call

    if part == "mlp":
        torch.set_num_threads(1)
    made, (count, shots, _) = parameters(part), SIZES[part]
    inputs, labels = map(torch.from_numpy, tasks(part))
    layers = []
    for weights in made["backbone"].values():
        module = to_torch(weights)
        if part == "conv":
            module.padding = (1, 1)
            layers += [module, nn.ReLU(), nn.MaxPool2d(2)]
        else:
            layers += [module, nn.ReLU()]
    net = nn.Sequential(*layers, nn.Flatten(), to_torch(made["heads"]["task"]))
    if part == "conv":
        inputs, labels = inputs.movedim(-1, 3).contiguous(), labels.long()
        loss_fn = nn.functional.cross_entropy
    else:

        def loss_fn(outputs, labels):
            return nn.functional.mse_loss(outputs[:, 0], labels)

    adam, step = torch.optim.Adam(net.parameters(), 1e-3), 0

    def run(units: int) -> float:
        nonlocal step
        for _ in range(units):
            x, y = inputs[step % MANY], labels[step % MANY]
            adam.zero_grad(set_to_none=True)
            total = 0.0
            params = dict(net.named_parameters())
            for i in range(count):
                loss = loss_fn(net(x[i, :shots]), y[i, :shots])
                slopes = torch.autograd.grad(loss, list(params.values()), create_graph=True)
                fast = {
                    name: leaf - RATE * slope
                    for (name, leaf), slope in zip(params.items(), slopes, strict=True)
                }
                total = total + loss_fn(functional_call(net, fast, x[i, shots:]), y[i, shots:])
            (total / count).backward()
            adam.step()
            step += 1
        return (total / count).item()

    return run


if __name__ == "__main__":
    variant, part = sys.argv[1:]
    if variant == "memory":
        print(json.dumps(memory(part)))
    else:
        serve({"jaxtl": jaxtl, "torch": torch}[variant](part))
