"""Learned tokens among those of a transformer: prompt tuning, and visual prompt tuning."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from jaxtl.models.adapter import Adapter, Call, attach
from jaxtl.paths import unknown
from jaxtl.plan import Model, Params, PyTree, Statistics


def prompt(
    model: Model,
    length: int = 20,
    first: str = "layer_0",
    last: str = "pool",
    limit: float = 0.5,
    name: str = "prompt",
) -> Model:
    """`length` learned tokens in front of a text's, after its embeddings.

    They are `<name>/backbone/<first>/tokens` [length, width], have no position, are never masked,
    and start as U(-limit, limit) (the paper's random initialisation), so that the model does not
    start as it was. They are taken away before the block `last`: the pooling sees the text's own
    tokens only, a first token is still the text's first and a mean that over the text. Cannot be
    merged.

    Args:
        model: between its blocks travels {"hidden": [n, length, width], "mask": [n, length]} or an
            array [n, length, width].
        length: how many.
        first: the block before which they are put in.
        last: the block before which they are taken away.
        limit: of the initial values.

    Raises:
        ValueError: the model has no such block.

    Lester et al., "The Power of Scale for Parameter-Efficient Prompt Tuning", 2021.
    arXiv:2104.08691.
    """
    return _tokens(model, length, [first], last, 0, lambda width: limit, name)


def visual_prompt(
    model: Model,
    length: int = 10,
    first: str = "layer_0",
    last: str = "norm",
    patch: int = 16,
    name: str = "vpt",
) -> Model:
    """VPT-shallow: `length` learned tokens after an image's first (the class token's place).

    They are `<name>/backbone/<first>/tokens` [length, width], start as U(-v, v) with v = sqrt(6 /
    (3 patch^2 + width)) as in the authors' code, and are taken away before the block `last`, so
    that a class token is still the first and a mean is one of patches. Cannot be merged.

    Args:
        model: between its blocks travel tokens [n, tokens, width].
        length: how many.
        first: the block before which they are put in.
        last: the block before which they are taken away.
        patch: side of the model's patches in pixels.

    Raises:
        ValueError: the model has no such block.

    Jia et al., "Visual Prompt Tuning", 2022. arXiv:2203.12119, Eq. 4-6.
    """
    return deep_visual_prompt(model, length, re.escape(first), last, patch, name)


def deep_visual_prompt(
    model: Model,
    length: int = 10,
    layers: str = r"layer_\d+",
    last: str = "norm",
    patch: int = 16,
    name: str = "vpt",
) -> Model:
    """VPT-deep: as `visual_prompt`, and each later layer gets learned tokens of its own instead.

    Args:
        model, length, last, patch: as in `visual_prompt`.
        layers: pattern of the blocks that get tokens, `<name>/backbone/<block>/tokens`.

    Raises:
        ValueError: the model has no such blocks.

    Jia et al., "Visual Prompt Tuning", 2022. arXiv:2203.12119, Eq. 7-8.
    """
    places = [block for block in model.blocks if re.fullmatch(layers, block)] or [layers]

    def limit(width: int) -> float:
        return math.sqrt(6 / (3 * patch**2 + width))

    return _tokens(model, length, places, last, 1, limit, name)


def _tokens(
    model: Model,
    length: int,
    places: Sequence[str],
    last: str,
    at: int,
    limit: Callable[[int], float],
    name: str,
) -> Model:
    """Learned tokens between the blocks of a model.

    Args:
        places: blocks before which tokens are put in, or replaced after the first of them.
        last: the block before which they are taken away.
        at: how many tokens stand in front of them.
        limit: width -> bound of the uniform initial values.

    Raises:
        ValueError: the model has no such block.
    """
    for block in (*places, last):
        if block not in model.blocks:
            raise ValueError(unknown("block", block, model.blocks))
    edited = [block for block in model.blocks if block in {*places, last}]

    def start(
        model: Model, params: Params, statistics: Statistics, inputs: PyTree, key: Callable
    ) -> dict[str, jax.Array]:
        widths: dict[str, int] = {}

        def measure(call: Call) -> Call:
            if call.block.name in places:
                widths[f"backbone/{call.block.name}/tokens"] = _hidden(call.inputs).shape[-1]
            return call

        traced = dataclasses.replace(attach(model, Adapter(name, start, measure)), heads={})
        jax.eval_shape(traced.apply, params, statistics, inputs)
        return {
            path: limit(width) * jax.random.uniform(key(path), (length, width), minval=-1)
            for path, width in widths.items()
        }

    def change(call: Call) -> Call:
        block = call.block.name
        if block not in edited:
            return call
        if block == last:
            tokens = jnp.zeros((0, _hidden(call.inputs).shape[-1]))
        else:
            tokens = call.params[name]["backbone"][block]["tokens"]
        removed = 0 if block == edited[0] else length
        return call._replace(inputs=_splice(call.inputs, tokens, at, removed))

    why = "its tokens stand among those of the inputs, in no weight"
    return attach(model, Adapter(name, start, change, unmergeable=why))


def _hidden(x: PyTree) -> jax.Array:
    return x["hidden"] if isinstance(x, Mapping) else x


def _splice(x: PyTree, tokens: jax.Array, at: int, removed: int) -> PyTree:
    """Tokens `at` ... `at + removed` replaced by others [length, width], which are never masked."""

    def replace(array: jax.Array, middle: jax.Array) -> jax.Array:
        return jnp.concatenate([array[:, :at], middle, array[:, at + removed :]], axis=1)

    hidden = _hidden(x)
    rows = jnp.broadcast_to(tokens.astype(hidden.dtype)[None], (len(hidden), *tokens.shape))
    if not isinstance(x, Mapping):
        return replace(hidden, rows)
    mask = jnp.ones(rows.shape[:2], x["mask"].dtype)
    return {**x, "hidden": replace(hidden, rows), "mask": replace(x["mask"], mask)}
