"""What can stand in a model: linen modules that give one array of features."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl.form import Rate, Size, wrong
from jaxtl.plan import PyTree

WIDTHS = nn.Dense | nn.Conv | nn.ConvTranspose | nn.Embed


def check_layer(name: str, layer: Any) -> None:
    """Nothing, if the layer of a block is a linen module.

    Raises:
        ValueError: it is not.
    """
    if isinstance(layer, nn.Module):
        return
    kind = layer if isinstance(layer, type) else type(layer)
    title = kind.__qualname__
    if any(parent.__module__.startswith("flax.nnx") for parent in kind.__mro__):
        problem = f"{title} is a Flax NNX module, which models.from_nnx takes"
    elif isinstance(layer, type) and issubclass(layer, nn.Module):
        problem = f"{title} is a class, not a module: {title}(...)"
    else:
        problem = f"got {' '.join(repr(layer).split()):.60}, a {title}"
    raise ValueError(f"block {name!r}: {problem}; an instance of a flax.linen.Module is expected.")


def check_call(name: str, layer: nn.Module, inputs: PyTree, flags: Mapping[str, bool]) -> None:
    """Nothing, if a layer can be called with inputs and flags.

    Raises:
        ValueError: it takes fewer or needs more.
    """
    try:
        inspect.signature(type(layer).__call__).bind(layer, inputs, **flags)
    except TypeError as error:
        raise ValueError(
            f"block {name!r}: {type(layer).__name__}.__call__ is given inputs"
            f"{''.join(f', {flag}' for flag in flags)}: {error}; say how to call it with "
            "`call=lambda module, inputs, train: module(...)`."
        ) from None


def check_features(blocks: Sequence[str], inputs: PyTree, features: PyTree) -> None:
    """Nothing, if what blocks give for inputs [n, ...] are features, a float array [n, ...].

    Raises:
        ValueError: they are something else.
    """
    name = f"block {blocks[-1]!r}" if blocks else "`before`"
    n = jax.tree.leaves(inputs)[0].shape[0]
    shape, dtype = (getattr(features, field, None) for field in ("shape", "dtype"))
    if shape is None or dtype is None:
        problem = f"a {type(features).__name__}"
    elif not jnp.issubdtype(dtype, jnp.floating):
        problem = f"numbers of type {dtype}"
    elif tuple(shape[:1]) != (n,):
        problem = f"the shape {list(shape)} for {n} example{'' if n == 1 else 's'}"
    else:
        return
    raise ValueError(
        f"{name} gives {problem}; features are one float array [n, ...] for n examples; "
        f"{_choice(features)}."
    )


def _choice(outputs: PyTree) -> str:
    """How the features are chosen among several outputs."""
    if isinstance(outputs, Mapping) and outputs:
        keys = ", ".join(map(repr, list(outputs)[:8]))
        return f"`output=` chooses one of {keys}"
    if isinstance(outputs, Sequence) and len(outputs):
        return f"`output=0` ... `output={len(outputs) - 1}` chooses one"
    return "`output=` chooses or changes them, a key, an index or a function"


def with_same_shapes(name: str, call: Callable, *arguments: Any, **options: Any) -> Any:
    """`call(...)` of a block.

    Raises:
        ValueError: its parameters would have other shapes than it was initialised with.
    """
    try:
        return call(*arguments, **options)
    except flax.errors.ScopeParamShapeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"block {name!r}: parameters have other shapes than at the start; they may depend on "
            f"the features of an example only, not on the number of examples: {reason}"
        ) from error


def check_widths(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
    """A linen interceptor that refuses impossible layers.

    Raises:
        ValueError: a layer has no outputs, or drops a share that is not in [0, 1).
    """
    layer = context.module
    if context.method_name == "__call__":
        if isinstance(layer, nn.Dropout):
            name, value, limit = "rate", layer.rate, Rate
        elif isinstance(layer, WIDTHS):
            name, value, limit = "features", layer.features, Size
        else:
            return call(*args, **kwargs)
        place = f"{type(layer).__name__} {'/'.join(layer.path)}".rstrip()
        if problems := list(wrong(f"{place}: {name}", value, limit)):
            raise ValueError("\n".join(problems))
    return call(*args, **kwargs)
