"""Steps of rules that combine the gradients of K tasks on a shared MLP; batch 64, Adam.

python combine.py jaxtl|torch|equal pcgrad|mgda 3|10

`equal` is our step on the sum of the losses, `torch` one forward pass and K backward passes, then
the rule as plain code: PCGrad by its loops over flat gradients, MGDA by Frank and Wolfe's
iterations on their inner products.
"""

import random
import sys
from collections.abc import Callable

import numpy as np
from duel import serve
from plain import layer, order, to_torch

N, INPUTS, WIDTH, BATCH, WAYS = 4096, 64, 256, 64, 10
RATE, ITERATIONS, TOLERANCE = 1e-3, 250, 1e-5


def examples(tasks: int) -> tuple[np.ndarray, np.ndarray]:
    """(inputs [n, inputs], labels [n, tasks])."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(N, INPUTS)).astype(np.float32)
    return inputs, rng.integers(0, WAYS, (N, tasks))


def parameters(tasks: int) -> dict:
    rng = np.random.default_rng(1)
    backbone = {"dense_0": layer(rng, INPUTS, WIDTH), "dense_1": layer(rng, WIDTH, WIDTH)}
    heads = {f"task_{i}": layer(rng, WIDTH, WAYS) for i in range(tasks)}
    return {"backbone": backbone, "heads": heads}


def ours(rule: str, tasks: int) -> Callable[[int], float]:
    """Our step, one seed, the loop as `jaxtl.train.loop` drives it; `equal` for the plain sum."""
    import optax
    from ours import ours

    from jaxtl import data, models
    from jaxtl.methods import multitask, transfer
    from jaxtl.plan import Stage, labelled

    inputs, labels = examples(tasks)
    names, adam = [f"task_{i}" for i in range(tasks)], optax.adam(RATE)
    table = data.arrays(inputs, dict(zip(names, labels.T, strict=True)))
    model = models.mlp({name: models.classes(WAYS) for name in names}, hidden=(WIDTH, WIDTH))
    rules = {"pcgrad": multitask.pcgrad, "mgda": multitask.mgda}
    method = transfer.full(adam) if rule == "equal" else multitask.joint(adam, rules[rule]())
    domains = [labelled(table, {name: name for name in names})]
    stage = Stage("combine", model, method, domains=domains, batch_size=BATCH, num_steps=10**9)
    return ours(stage, params=parameters(tasks))


def torch(rule: str, tasks: int) -> Callable[[int], float]:
    import torch
    from torch import nn

    torch.set_num_threads(1)  # more only cost time where matrices are small
    made, (inputs, labels) = parameters(tasks), map(torch.from_numpy, examples(tasks))
    layers = [to_torch(made["backbone"][f"dense_{i}"]) for i in range(2)]
    shared = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU())
    heads = nn.ModuleList(to_torch(weights) for weights in made["heads"].values())
    common = list(shared.parameters())
    adam = torch.optim.Adam([*common, *heads.parameters()], RATE)
    rows, step = torch.from_numpy(order(N, BATCH)).long(), 0

    def pcgrad(grads: torch.Tensor) -> torch.Tensor:
        freed = []
        for i in range(tasks):
            grad, others = grads[i].clone(), [j for j in range(tasks) if j != i]
            random.shuffle(others)
            for j in others:
                along = grad @ grads[j]
                if along < 0:
                    grad -= along / (grads[j] @ grads[j]) * grads[j]
            freed.append(grad)
        return torch.stack(freed).sum(0)

    def mgda(grads: torch.Tensor) -> torch.Tensor:
        products = (grads @ grads.T).double().numpy()
        weights = np.full(tasks, 1 / tasks)
        for _ in range(ITERATIONS):
            slopes = products @ weights
            corner = np.argmin(slopes)
            square, along, other = weights @ slopes, slopes[corner], products[corner, corner]
            gap = square + other - 2 * along
            share = np.clip((square - along) / gap, 0, 1) if gap > 0 else 0.0
            new = (1 - share) * weights + share * np.eye(tasks)[corner]
            if np.abs(new - weights).sum() < TOLERANCE:
                break
            weights = new
        return torch.from_numpy(weights).float() @ grads

    combine = {"pcgrad": pcgrad, "mgda": mgda}[rule]

    def run(units: int) -> float:
        nonlocal step
        for _ in range(units):
            index = rows[step % len(rows)]
            features = shared(inputs[index])
            losses = [
                nn.functional.cross_entropy(head(features), labels[index, i])
                for i, head in enumerate(heads)
            ]
            grads = []
            for loss, head in zip(losses, heads, strict=True):
                own = list(head.parameters())
                slopes = torch.autograd.grad(loss, [*common, *own], retain_graph=True)
                grads.append(torch.cat([slope.flatten() for slope in slopes[: len(common)]]))
                for leaf, slope in zip(own, slopes[len(common) :], strict=True):
                    leaf.grad = slope
            whole, start = combine(torch.stack(grads)), 0
            for leaf in common:
                leaf.grad = whole[start : start + leaf.numel()].view_as(leaf)
                start += leaf.numel()
            adam.step()
            step += 1
        return sum(loss.item() for loss in losses)

    return run


if __name__ == "__main__":
    variant, rule, tasks = sys.argv[1:]
    if variant == "torch":
        serve(torch(rule, int(tasks)))
    else:
        serve(ours("equal" if variant == "equal" else rule, int(tasks)))
