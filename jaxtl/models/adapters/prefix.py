"""Prefix tuning: learned keys and values that every position of every layer attends to."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl.models.adapter import Adapter, Call, attach, leaves_of
from jaxtl.models.adapters.layers import target_layers, trace_layers
from jaxtl.plan import Model, Params, PyTree, Statistics


def prefix(
    model: Model,
    length: int = 20,
    targets: Sequence[str] = (r"backbone/.*/attention/core",),
    deviation: float = 0.02,
    name: str = "prefix",
) -> Model:
    """`length` more keys and values in front of those of each layer's attention, never masked.

    They are parameters, `<name>/<layer>/{key,value}` [length, heads, head width], so 2 * length *
    heads * head width a layer; the paper computes them by a network while it trains, which is then
    thrown away. They start as N(0, deviation^2): the model does not start as it was. Cannot be
    merged.

    Args:
        model: one whose attention is computed by layers called as (query, key, value, mask, ...),
            with [n, length, heads, head width] arrays and mask [n, key length] bool or None.
        length: how many.
        targets: path patterns of these layers.
        deviation: of the initial values.

    Li & Liang, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", 2021.
    arXiv:2101.00190.
    """
    targets = tuple(targets)

    def shape(layer: nn.Module, inputs: tuple, outputs: PyTree) -> tuple[int, ...] | None:
        return inputs[1].shape[2:] if len(inputs) > 2 and jnp.ndim(inputs[1]) == 4 else None

    def start(
        model: Model, params: Params, statistics: Statistics, inputs: PyTree, key: Callable
    ) -> dict[str, jax.Array]:
        traced = trace_layers(model, params, statistics, inputs, shape)
        layers = target_layers(traced, targets, "layer that attends", model.whole)
        return {
            f"{path}/{leaf}": deviation * jax.random.normal(key(f"{path}/{leaf}"), (length, *sides))
            for path, sides in layers.items()
            for leaf in ("key", "value")
        }

    def change(call: Call) -> Call:
        leaves = leaves_of((call.block.name,), call.params, name)

        def extend(path: str, layer: nn.Module, inner: Callable, *given, **flags) -> PyTree:
            if path not in leaves:
                return inner(*given, **flags)
            query, key, value, *others = given
            mask = others.pop(0) if others else flags.pop("mask", None)
            key, value = (
                _in_front(leaves[path][leaf], x) for leaf, x in (("key", key), ("value", value))
            )
            if mask is not None:
                mask = jnp.pad(mask, ((0, 0), (length, 0)), constant_values=True)
            return inner(query, key, value, mask, *others, **flags)

        return call._replace(around=(extend, *call.around))

    why = "its keys and values stand beside those of the inputs, in no weight"
    return attach(model, Adapter(name, start, change, unmergeable=why))


def _in_front(learned: jax.Array, x: jax.Array) -> jax.Array:
    """[length, ...] before each row of [n, key length, ...]."""
    rows = jnp.broadcast_to(learned.astype(x.dtype)[None], (len(x), *learned.shape))
    return jnp.concatenate([rows, x], axis=1)
