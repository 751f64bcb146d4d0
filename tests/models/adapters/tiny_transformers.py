"""A BERT, a ViT and others of width 8, with the names of the published ones' parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxtl import paths
from jaxtl.models import Block, classes, from_blocks, from_linen
from jaxtl.models.layers import Conv

HEADS = {"target": classes(3)}
WIDTH, NUM_HEADS, LENGTH = 8, 2, 5


class Core(nn.Module):
    @nn.compact
    def __call__(self, query, key, value, mask=None, train=False):
        scores = jnp.einsum("nqhd,nkhd->nhqk", query, key) / np.sqrt(query.shape[-1])
        if mask is not None:
            scores = jnp.where(mask[:, None, None, :], scores, -1e9)
        return jnp.einsum("nhqk,nkhd->nqhd", nn.softmax(scores), value)


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x, mask=None, train=False):
        def heads(name):
            return nn.Dense(WIDTH, name=name)(x).reshape(*x.shape[:2], NUM_HEADS, -1)

        core = Core(name="core")
        outputs = core(heads("query"), heads("key"), heads("value"), mask, train=train)
        return nn.Dense(WIDTH, name="out")(outputs.reshape(x.shape))


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(WIDTH, name="down")(nn.gelu(nn.Dense(12, name="up")(x)))


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, mask=None, train=False):
        x = nn.LayerNorm(name="norm_1")(x + Attention(name="attention")(x, mask, train=train))
        return nn.LayerNorm(name="norm_2")(x + MLP(name="mlp")(x))


class TextEmbedding(nn.Module):
    @nn.compact
    def __call__(self, text):
        tokens = nn.Embed(11, WIDTH, name="tokens", embedding_init=nn.initializers.normal(1.0))
        positions = self.param("positions", nn.initializers.normal(0.1), (LENGTH, WIDTH))
        hidden = tokens(text["ids"]) + positions[None]
        return {"hidden": nn.LayerNorm(name="norm")(hidden), "mask": text["mask"]}


class Pool(nn.Module):
    """The mean of the tokens, beside the first."""

    @nn.compact
    def __call__(self, text):
        mask = text["mask"][..., None].astype(text["hidden"].dtype)
        mean = (text["hidden"] * mask).sum(1) / mask.sum(1)
        return nn.Dense(WIDTH, name="dense")(jnp.concatenate([text["hidden"][:, 0], mean], -1))


class Patches(nn.Module):
    @nn.compact
    def __call__(self, images):
        x = nn.Conv(WIDTH, (4, 4), (4, 4), name="patch")(images).reshape(len(images), -1, WIDTH)
        first = self.param("cls", nn.initializers.normal(0.1), (1, 1, WIDTH))
        return jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, WIDTH)), x], axis=1)


def on_text(layer, text, train):
    return {**text, "hidden": layer(text["hidden"], text["mask"] > 0, train=train)}


def bert(depth=2):
    layers = [Block(f"layer_{i}", Layer(), call=on_text) for i in range(depth)]
    return from_blocks([Block("embed", TextEmbedding()), *layers, Block("pool", Pool())], HEADS)


def vit(depth=2):
    layers = [Block(f"layer_{i}", Layer(), call=lambda m, x, train: m(x)) for i in range(depth)]
    norm = Block("norm", nn.LayerNorm(), lambda x: x[:, 0])
    return from_blocks([Block("embed", Patches()), *layers, norm], HEADS)


def chain():
    """Two plain dense layers."""
    return from_blocks(
        [Block("first", nn.Dense(7), nn.relu), Block("second", nn.Dense(6), nn.tanh)], HEADS
    )


def attention():
    """Linen's own attention: kernels [8, 2, 4] and [2, 4, 8]."""
    return from_linen(nn.MultiHeadDotProductAttention(NUM_HEADS), HEADS)


class Depthwise(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = Conv(6, (3, 3), name="full")(x)
        x = nn.Conv(6, (3, 3), feature_group_count=6, name="depthwise")(nn.relu(x))
        return nn.relu(x).mean((1, 2))


def convolutions():
    return from_linen(Depthwise(), HEADS)


class Fused(nn.Module):
    """Queries, keys and values by one layer, dense or general."""

    @nn.compact
    def __call__(self, x):
        q, k, v = jnp.split(nn.Dense(3 * WIDTH, name="qkv")(x), 3, axis=-1)
        x = nn.softmax(q @ k.swapaxes(1, 2)) @ v
        q, k, v = jnp.moveaxis(nn.DenseGeneral((3, WIDTH), name="general")(x), -2, 0)
        return nn.softmax(q @ k.swapaxes(1, 2)) @ v


def fused():
    return from_linen(Fused(), HEADS)


def text(n=6, seed=0):
    rng = np.random.default_rng(seed)
    mask = (np.arange(LENGTH) < rng.integers(2, LENGTH + 1, (n, 1))).astype(np.int32)
    return {"ids": rng.integers(0, 11, (n, LENGTH)).astype(np.int32), "mask": mask}


def images(n=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 8, 8, 1)).astype(np.float32)


def vectors(n=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)


def sequences(n=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, LENGTH, WIDTH)).astype(np.float32)


def drawn(model, inputs, seed=0):
    """Parameters and statistics drawn by NumPy, of the size of initial ones."""
    rng = np.random.default_rng(seed)
    params, state = jax.eval_shape(model.init, jax.random.key(0), inputs)
    assert not state
    flat = {}
    for path, leaf in sorted(paths.flatten(params).items()):
        scale = max(np.prod(leaf.shape[:-1]), 1) ** -0.5
        flat[path] = (scale * rng.normal(size=leaf.shape)).astype(np.float32)
        flat[path] += path.endswith("/scale")
    return paths.nest(flat), state


def adapter_of(model, name, inputs, seed=0):
    """The initial parameters of an adapter; those of the model under it are not computed."""

    def own(key):
        return model.init(key, inputs)[0][name]

    return jax.tree.map(np.array, compiled(own, jax.random.key(seed)))


def moved(tree, seed=1, scale=0.3):
    """Leaves off their values."""
    rng = np.random.default_rng(seed)
    flat = sorted(paths.flatten(tree).items())
    return paths.nest(
        {p: (leaf + scale * rng.normal(size=leaf.shape)).astype(np.float32) for p, leaf in flat}
    )


def compiled(function, *args):
    """`jax.jit(function)(*args)`, compiled fast for one call."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function).lower(*args).compile(compiler_options=options)(*args)


def target(model, params, inputs, **options):
    """Logits of the head, to be called under `compiled`."""
    return model.apply(params, {}, inputs, **options)[0]["logits"]["target"]


def stacked(*trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def values_and_slopes(model, base, own, inputs, direction):
    """(logits, gradient of their product with a direction) at each of several own parameters."""

    def loss(own):
        found = target(model, {**base, **own}, inputs)
        return jnp.sum(direction * found), found

    slopes, found = jax.vmap(jax.grad(loss, has_aux=True))(own)
    return found, slopes
