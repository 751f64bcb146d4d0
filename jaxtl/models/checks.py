"""What can stand in a model: linen modules that give one array of features."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl.plan import PyTree


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
        problem = f"{title} is a Flax NNX module, which is not supported"
    elif isinstance(layer, type) and issubclass(layer, nn.Module):
        problem = f"{title} is a class, not a module: {title}(...)"
    else:
        problem = f"got {' '.join(repr(layer).split()):.60}, a {title}"
    raise ValueError(f"block {name!r}: {problem}; an instance of a flax.linen.Module is expected.")


def check_features(name: str, inputs: PyTree, features: PyTree) -> None:
    """Nothing, if what `name` gives for inputs [n, ...] are features, a float array [n, ...].

    Raises:
        ValueError: they are something else.
    """
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
        "`call=lambda module, inputs, train: ...` can choose or change them."
    )


def other_shapes(name: str, error: Exception) -> str:
    """What to say where linen finds parameters of other shapes than it would make."""
    said = " ".join(str(error).split())
    return (
        f"block {name!r}: parameters have other shapes than at the start; they may depend on "
        f"the features of an example only, not on the number of examples: {said}"
    )
