"""Memory of one way to train, as a line of JSON.

python memory.py full|partial|cached|torch_full|torch_partial|lora_1|lora_5

The first five train an MLP of 25 million parameters: `partial` trains the head on a frozen
backbone, `cached` on features that are computed once. The last two train adapters of MiniLM-L6 with
its published weights, of one seed and of five: the peaks are to be compared less the temporary
memory, which is that of the activations. The peaks are of the whole process, less that before the
stage starts; `temporary` and `argument` are XLA's numbers for the compiled dispatch.
"""

import dataclasses
import json
import resource
import sys

import numpy as np

N, BATCH, INPUTS, HIDDEN, CLASSES, STEPS = 1024, 64, 784, (3072, 4096, 2560), 10, 50


def examples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, INPUTS)).astype(np.float32), rng.integers(0, CLASSES, N)


def peak() -> float:
    """The most memory this process has had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def jaxtl(variant: str) -> dict[str, float]:
    import optax

    from jaxtl import data, models
    from jaxtl.methods import transfer
    from jaxtl.plan import Method, Stage, labelled

    adam = optax.adam(1e-3)
    method = transfer.full(adam)
    if variant != "full":
        method = Method(**{**vars(transfer.probe(adam)), "fresh_frozen": True})
    model = models.mlp({"y": models.classes(CLASSES)}, HIDDEN)
    domain = labelled(data.arrays(*examples()), "y")
    stage = Stage(variant, model, method, domains=[domain], batch_size=BATCH, num_steps=10**9)
    return measured(stage, (0,), STEPS, cached=variant == "cached")


def lora(seeds: tuple[int, ...]) -> dict[str, float]:
    import minilm

    from jaxtl import pretrained

    weights = pretrained.weights(pretrained.MINILM_L6, pretrained.BERT)
    stage = dataclasses.replace(
        minilm.stage("lora"), weights=weights, fresh=("lora/.*", "heads/.*")
    )
    return measured(stage, seeds, 8)


def measured(stage, seeds: tuple[int, ...], count: int, cached: bool = False) -> dict[str, float]:
    """What so many steps of a stage take."""
    import jax
    from ours import build, steps

    jax.block_until_ready(jax.numpy.zeros(1))
    before = peak()
    program = build(stage, seeds, cached=cached)
    started, carry = peak(), program.carry()
    shapes = jax.eval_shape(lambda *args: args, *program.arguments(carry, 0, 1, seeds, {}))
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(carry.opt_state))
    live = sum(array.nbytes for array in jax.live_arrays())
    steps(program)(count)
    trained = peak()
    analysis = program.made.dispatch.lower(*shapes).compile().memory_analysis()
    return {
        "trained parameters": sum(leaf.size for leaf in jax.tree.leaves(carry.trainable)),
        "optimizer MB": state / 2**20,
        "arrays MB": live / 2**20,
        "peak MB": trained - before,
        "peak before step 1 MB": started - before,
        "temporary MB": analysis.temp_size_in_bytes / 2**20,
        "argument MB": analysis.argument_size_in_bytes / 2**20,
    }


def torch(variant: str) -> dict[str, float]:
    import torch
    from torch import nn

    x, labels = (torch.from_numpy(array) for array in examples())
    before = peak()
    widths = (INPUTS, *HIDDEN)
    layers = [m for a, b in zip(widths, HIDDEN, strict=False) for m in (nn.Linear(a, b), nn.ReLU())]
    backbone, head = nn.Sequential(*layers), nn.Linear(HIDDEN[-1], CLASSES)
    backbone.requires_grad_(variant == "torch_full")
    trained = [p for m in (backbone, head) for p in m.parameters() if p.requires_grad]
    adam = torch.optim.Adam(trained, 1e-3)
    for step in range(STEPS):
        rows = torch.arange(step * BATCH, (step + 1) * BATCH) % N
        adam.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(head(backbone(x[rows])), labels[rows]).backward()
        adam.step()
    tensors = [v for s in adam.state.values() for v in s.values()]
    return {
        "trained parameters": sum(p.numel() for p in trained),
        "optimizer MB": sum(t.numel() * t.element_size() for t in tensors) / 2**20,
        "peak MB": peak() - before,
    }


if __name__ == "__main__":
    variant = sys.argv[1]
    if variant.startswith("lora"):
        print(json.dumps(lora(tuple(range(int(variant.removeprefix("lora_")))))))
    else:
        print(json.dumps((torch if variant.startswith("torch") else jaxtl)(variant)))
