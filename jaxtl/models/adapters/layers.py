"""The layers of a model as adapters see them: by path, traced and never computed."""

import dataclasses
import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from jaxtl import paths
from jaxtl.models.adapter import Call
from jaxtl.models.blocks import Around, Block
from jaxtl.models.foreign import Foreign
from jaxtl.plan import Model, Params, PyTree, Statistics

Read = Callable[[nn.Module, tuple, PyTree], Any]
"""(layer, its positional inputs, its outputs) -> what is noted; arrays are abstract."""


class Layer(NamedTuple):
    """What is known of a layer.

    Attributes:
        dense: a dense layer.
        input_axes: leading axes of its kernel that are summed over; None if all but the last.
        kernel_axes: of its kernel, None if unknown.
        plain: its outputs are inputs @ kernel + bias and nothing else.
    """

    dense: bool = False
    input_axes: int | None = None
    kernel_axes: int | None = None
    plain: bool = False


def kind_of(layer: nn.Module, inputs: tuple, outputs: PyTree) -> Layer:
    """What a layer is, from one call of it."""
    if isinstance(layer, nn.Dense):
        return Layer(True, 1, 2, type(layer) is nn.Dense and len(inputs) == 1)
    if isinstance(layer, nn.DenseGeneral):
        axis, features = (
            tuple(sizes) if isinstance(sizes, Sequence) else (sizes,)
            for sizes in (layer.axis, layer.features)
        )
        plain = type(layer) is nn.DenseGeneral and len(inputs) == 1
        if plain:
            rank = inputs[0].ndim
            plain = tuple(a % rank for a in axis) == tuple(range(rank - len(axis), rank))
        kernel_axes = 0 if layer.batch_dims else len(axis) + len(features)
        return Layer(True, len(axis), kernel_axes, plain)
    if isinstance(layer, nn.Conv | nn.ConvTranspose):
        window = layer.kernel_size
        return Layer(kernel_axes=2 + (len(window) if isinstance(window, Sequence) else 1))
    return Layer()


def trace_layers(
    model: Model, params: Params, statistics: Statistics, inputs: PyTree, read: Read
) -> Mapping[str, Any]:
    """{path: what is read} of all layers of a model."""
    layers: dict[str, Any] = {}
    around = (*model.around, _record(layers, read))
    traced = dataclasses.replace(model, heads={}, around=around)
    jax.eval_shape(traced.apply, params, statistics, inputs)
    return layers


def foreign_layers(model: Model) -> dict[str, Layer]:
    """{path: Layer} of the layers of other libraries, which cannot be traced."""
    return {
        f"backbone/{block.name}/{path}": Layer(input_axes == 1, input_axes, kernel_axes)
        for block in model.backbone
        if isinstance(block.layer, Foreign)
        for path, (input_axes, kernel_axes) in block.layer.source.kernel_axes.items()
    }


def target_layers(
    traced: Mapping[str, Any], targets: Sequence[str], kind: str, whole: bool
) -> dict[str, Any]:
    """{path: what was read} of the layers that a pattern matches and of which something was read.

    Args:
        traced: as `trace_layers` gives it, None for layers that cannot be adapted.
        kind: what the others are, for the message.
        whole: each pattern must match; in a part of a model, some are meant for the other one.

    Raises:
        ValueError: a pattern matches none.
    """
    layers = {path: read for path, read in traced.items() if read is not None}
    if whole:
        paths.select(targets, layers, kind)
    return {path: read for path, read in layers.items() if paths.matches(targets, path)}


def layers_of(call: Call) -> Mapping[str, Layer]:
    """{path: Layer} of a block; it is traced once, as the values of a call do not matter."""
    if call.block not in _traced:
        layers: dict[str, Layer] = {}
        run = functools.partial(call.block.apply, around=(_record(layers, kind_of),))
        jax.eval_shape(run, call.weights, call.statistics, call.inputs)
        _traced[call.block] = layers
    return _traced[call.block]


_traced: weakref.WeakKeyDictionary[Block, Mapping[str, Layer]] = weakref.WeakKeyDictionary()


def _record(layers: dict[str, Any], read: Read) -> Around:
    def call_and_read(path: str, layer: nn.Module, call: Callable, *inputs, **options) -> PyTree:
        outputs = call(*inputs, **options)
        layers[path] = read(layer, inputs, outputs)
        return outputs

    return call_and_read
