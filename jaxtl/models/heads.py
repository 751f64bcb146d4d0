"""Heads: what a model predicts, and the loss of one label.

A label that is hidden or missing is -1 or NaN and has weight 0. `where(weight > 0, loss, 0)` keeps
its loss out of the sum, but a NaN label would still make the gradient NaN (0 * NaN): whoever calls
a loss of float labels also puts zeros, `where(weight > 0, labels, 0)`, in the labels' place.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxtl.form import Size, checked
from jaxtl.plan import Head, Module, Params, StageShape


def classes(size: int, label_smoothing: float = 0.0) -> Head:
    """One of `size` classes: softmax cross-entropy; labels [...] integers in [0, size).

    The loss of label -1 is finite and means nothing.

    Args:
        size: number of classes.
        label_smoothing: s in [0, 1], cross-entropy against (1 - s) * one-hot + s / size (Szegedy
            et al., 2016, arXiv:1512.00567, Section 7), in evaluation too.

    Raises:
        ValueError: label_smoothing is outside [0, 1].
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}.")

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        labels = jnp.maximum(labels, 0)
        if label_smoothing == 0:
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        one_hot = jax.nn.one_hot(labels, size, dtype=logits.dtype)
        return optax.softmax_cross_entropy(logits, optax.smooth_labels(one_hot, label_smoothing))

    return Head(size, loss)


def binary(size: int) -> Head:
    """Any of `size` classes: sigmoid cross-entropy of each.

    Labels are [..., size] floats in [0, 1].
    """
    return Head(size, optax.sigmoid_binary_cross_entropy, (size,), integer=False, bounds=(0.0, 1.0))


def regression(size: int = 1) -> Head:
    """`size` real numbers: squared error of each, without the factor 1/2.

    Labels are [..., size] floats, or [...] for size 1.
    """

    def loss(outputs: jax.Array, labels: jax.Array) -> jax.Array:
        return optax.squared_error(outputs[..., 0] if size == 1 else outputs, labels)

    return Head(size, loss, () if size == 1 else (size,), integer=False)


@checked
def mlp_head(
    hidden: Sequence[Size], size: Size | Callable[[StageShape], int], *, batch_norm: bool = False
) -> Module:
    """A network on a model's features, such as a domain discriminator.

    Args:
        hidden: widths of the hidden layers `dense_0`, `dense_1`, ..., each followed by a ReLU.
        size: number of outputs, of the layer `output`; a function of the stage's shape for one that
            the stage decides, such as `lambda shape: len(shape.roles)`.
        batch_norm: before each ReLU a BatchNorm `norm_0`, ... by the rows at hand: no statistics
            are kept, as such a network is only used in training.

    Returns:
        Module with apply: (params, [..., features]) -> [..., size].
    """

    def init(rng: jax.Array, output: dict, shape: StageShape) -> Params:
        network = _Network((*hidden, size(shape) if callable(size) else size), batch_norm)
        return network.init(rng, output["features"])["params"]

    def apply(params: Params, inputs: jax.Array) -> jax.Array:
        network = _Network((*hidden, params["output"]["bias"].shape[-1]), batch_norm)
        return network.apply({"params": params}, inputs, mutable=["batch_stats"])[0]

    return Module(init, apply)


class _Network(nn.Module):
    widths: tuple[int, ...]
    batch_norm: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, width in enumerate(self.widths[:-1]):
            x = nn.Dense(width, not self.batch_norm, name=f"dense_{i}")(x)
            if self.batch_norm:
                x = nn.BatchNorm(use_running_average=False, name=f"norm_{i}")(x)
            x = nn.relu(x)
        return nn.Dense(self.widths[-1], name="output")(x)
