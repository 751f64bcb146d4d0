"""Stochastic normalisation: BatchNorm that takes the running statistics for some channels."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl.plan import Model, PyTree


def stoch_norm(model: Model, p: float = 0.5) -> Model:
    """The same model, whose BatchNorm layers normalise each channel in one of two ways.

    While training, a channel takes the statistics of the batch with probability p and the running
    ones as they were before the batch otherwise, drawn anew for each batch; the running ones are
    updated as ever, and constants of the gradient. Evaluation, and layers whose statistics are
    not live, use the running ones.

    Args:
        model: any model with `nn.BatchNorm` layers.
        p: in [0, 1]; 1 is BatchNorm.

    Raises:
        ValueError: p is outside [0, 1].

    Kou et al., "Stochastic Normalization", NeurIPS 2020.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p is a probability, got {p}.")

    def choose(path: str, layer: nn.Module, call: Callable, *inputs, **options) -> PyTree:
        if not isinstance(layer, nn.BatchNorm):
            return call(*inputs, **options)
        before = jax.tree.map(lambda leaf: leaf, layer.variables)  # a view, which the call changes
        by_batch = call(*inputs, **options)
        if layer.variables["batch_stats"]["mean"] is before["batch_stats"]["mean"]:
            return by_batch  # in evaluation, and where the statistics are constants
        # A copy, as `use_running_average` may be set on the layer and then cannot be passed too.
        constant = layer.clone(parent=None, use_running_average=True)
        by_running = constant.apply(before, inputs[0], mask=options.get("mask"))
        axes = layer.axis if isinstance(layer.axis, tuple) else (layer.axis,)
        channels = {axis % by_batch.ndim for axis in axes}
        shape = [size if i in channels else 1 for i, size in enumerate(by_batch.shape)]
        chosen = jax.random.bernoulli(layer.make_rng("dropout"), p, shape)
        return jnp.where(chosen, by_batch, by_running)

    return dataclasses.replace(model, around=(*model.around, choose))
