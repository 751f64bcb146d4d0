"""Variants of MiniLM-L6 with its published weights: 16 texts of up to 64 tokens.

python minilm.py jaxtl|hand|torch forward|lora|full

Parts: the mean of the last hidden states of a batch, frozen; a step that trains matrices of rank 8
beside the query and value kernels, and a head; a step that trains everything. Nothing is dropped
out. PyTorch is eager, with its fused attention.
"""

import sys
from types import SimpleNamespace

import numpy as np
from duel import serve
from plain import by_layer, dense, order, repeated, scanned

N, BATCH, LENGTH, VOCABULARY, CLASSES = 256, 16, 64, 30522, 2
DEPTH, HEADS, EPSILON = 6, 12, 1e-12
RANK, ALPHA, RATES = 8, 16, {"lora": 1e-3, "full": 5e-5}


def examples() -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, VOCABULARY, (N, LENGTH), np.int32)
    lengths = rng.integers(LENGTH // 2, LENGTH + 1, (N, 1))
    mask = (np.arange(LENGTH) < lengths).astype(np.int32)
    return {"ids": ids, "mask": mask}, rng.integers(0, CLASSES, N)


def batches() -> list[dict[str, np.ndarray]]:
    texts, _ = examples()
    return [{k: v[i : i + BATCH] for k, v in texts.items()} for i in range(0, N, BATCH)]


def stage(part: str):
    import optax
    from ours import Published

    from jaxtl import data, models, pretrained
    from jaxtl.methods import transfer
    from jaxtl.models import adapters
    from jaxtl.plan import Stage, labelled

    model = models.bert("minilm-l6", {"kind": models.classes(CLASSES)}, "mean", dropout=0.0)
    trains = {"forward": "heads/.*", "lora": "(lora|heads)/.*", "full": ".*"}[part]
    if part == "lora":
        model = adapters.lora(model, [r".*/(query|value)/kernel"], RANK, ALPHA)
    method = transfer.grouped({"all": ((trains,), optax.adam(RATES.get(part, 1e-3)))})
    domain = labelled(data.arrays(*examples()), "kind")
    weights = Published(pretrained.weights(pretrained.MINILM_L6, pretrained.BERT))
    return Stage(
        "minilm",
        model,
        method,
        domains=[domain],
        batch_size=BATCH,
        num_steps=10**9,
        weights=weights,
    )


def layers(part: str) -> dict[str, dict[str, np.ndarray]]:
    """{path of a layer: its parameters}, what all variants start from."""
    from ours import published

    return by_layer(published(stage(part)))


def encode(ids, mask, layers: dict, ops: SimpleNamespace):
    """ids, mask [n, length] -> [n, width].

    Args:
        ops: (inputs, layer) of `embed`, `norm` and `linear`; `gelu`; `attend`: queries, keys,
            values [n, heads, length, head width], mask -> the first's shape.
    """

    def linear(x, path):
        return ops.linear(x, layers[path], layers.get(f"lora/{path}"))

    def norm(x, path):
        return ops.norm(x, layers[path])

    words = ops.embed(ids, layers["backbone/embed/tokens"])
    places = layers["backbone/embed/positions"]["embedding"][: ids.shape[1]]
    segment = layers["backbone/embed/segments"]["embedding"][0]
    x = norm(words + places + segment, "backbone/embed/norm")
    for i in range(DEPTH):
        layer = f"backbone/layer_{i}"
        parts = [linear(x, f"{layer}/attention/{name}") for name in ("query", "key", "value")]
        parts = [y.reshape(*y.shape[:2], HEADS, -1).swapaxes(1, 2) for y in parts]
        y = ops.attend(*parts, mask).swapaxes(1, 2).reshape(x.shape)
        x = norm(x + linear(y, f"{layer}/attention/out"), f"{layer}/norm_1")
        y = linear(ops.gelu(linear(x, f"{layer}/mlp/up")), f"{layer}/mlp/down")
        x = norm(x + y, f"{layer}/norm_2")
    return (x * mask[..., None]).sum(1) / mask.sum(1)[:, None]


def jaxtl(part: str):
    from ours import features, ours

    return repeated(features(stage(part)), batches()) if part == "forward" else ours(stage(part))


def jax_operations() -> SimpleNamespace:
    import jax
    import jax.numpy as jnp

    def norm(x, layer):
        x = x - x.mean(-1, keepdims=True)
        factor = jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + EPSILON)
        return x * factor * layer["scale"] + layer["bias"]

    def linear(x, layer, beside):
        y = dense(x, layer)
        return y if beside is None else y + (x @ beside["a"]) @ (ALPHA / RANK * beside["b"])

    def attend(query, key, value, mask):
        scores = (query * query.shape[-1] ** -0.5) @ key.swapaxes(2, 3)
        scores += jnp.where(mask > 0, 0, -1e30)[:, None, None]
        return jax.nn.softmax(scores) @ value

    def embed(ids, layer):
        return layer["embedding"][ids]

    def gelu(x):
        return jax.nn.gelu(x, approximate=False)

    return SimpleNamespace(norm=norm, linear=linear, attend=attend, embed=embed, gelu=gelu)


def hand(part: str):
    """The best plain JAX we know: LoRA beside the kernels, gradients of what trains alone."""
    import jax
    import jax.numpy as jnp
    import optax

    made, ops = jax.tree.map(jnp.asarray, layers(part)), jax_operations()
    if part == "forward":
        forward = jax.jit(lambda layers, text: encode(text["ids"], text["mask"], layers, ops))
        return repeated(lambda text: np.asarray(forward(made, text)), batches())
    params = {k: v for k, v in made.items() if part == "full" or not k.startswith("backbone/")}
    fixed = {k: v for k, v in made.items() if k not in params}

    def loss_fn(params, fixed, batch):
        (text, labels), layers = batch, {**params, **fixed}
        logits = dense(encode(text["ids"], text["mask"], layers, ops), layers["heads/kind"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    adam = optax.adam(RATES[part])
    return scanned(loss_fn, adam, params, fixed, examples(), order(N, BATCH))


def torch_operations() -> SimpleNamespace:
    from torch.nn import functional

    def norm(x, layer):
        return functional.layer_norm(x, x.shape[-1:], layer["scale"], layer["bias"], EPSILON)

    def linear(x, layer, beside):
        y = functional.linear(x, layer["kernel"], layer["bias"])
        return y if beside is None else y + (x @ beside["a"]) @ beside["b"] * (ALPHA / RANK)

    def attend(query, key, value, mask):
        bias = (mask > 0)[:, None, None]
        return functional.scaled_dot_product_attention(query, key, value, bias)

    def embed(ids, layer):
        return functional.embedding(ids, layer["embedding"])

    return SimpleNamespace(
        norm=norm, linear=linear, attend=attend, embed=embed, gelu=functional.gelu
    )


def torch(part: str):
    import torch
    from torch.nn import functional

    ops = torch_operations()
    made = {
        path: {
            name: torch.from_numpy((leaf.T if name == "kernel" else leaf).copy())
            for name, leaf in layer.items()
        }
        for path, layer in layers(part).items()
    }
    texts, labels = examples()
    texts = {name: torch.from_numpy(values) for name, values in texts.items()}

    def forward(text: dict[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            text = {name: torch.from_numpy(values) for name, values in text.items()}
            return encode(text["ids"], text["mask"], made, ops).numpy()

    if part == "forward":
        return repeated(forward, batches())
    chosen = [v for k, v in made.items() if part == "full" or not k.startswith("backbone/")]
    trained = [leaf.requires_grad_() for layer in chosen for leaf in layer.values()]
    adam, head = torch.optim.Adam(trained, RATES[part]), made["heads/kind"]
    labels, rows_of, step = torch.from_numpy(labels), torch.from_numpy(order(N, BATCH)), 0

    def run(units: int) -> float:
        nonlocal step
        for _ in range(units):
            rows = rows_of[step % len(rows_of)]
            adam.zero_grad(set_to_none=True)
            features = encode(texts["ids"][rows], texts["mask"][rows], made, ops)
            logits = functional.linear(features, head["kernel"], head["bias"])
            loss = functional.cross_entropy(logits, labels[rows])
            loss.backward()
            adam.step()
            step += 1
        return loss.item()

    return run


if __name__ == "__main__":
    variant, part = sys.argv[1:]
    serve({"jaxtl": jaxtl, "hand": hand, "torch": torch}[variant](part))
