"""What all adapters share: parameters of their own, beside a model's, under the adapter's name."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from jaxtl import paths
from jaxtl.plan import Model, Params, PyTree, State


class AfterLoading(NamedTuple):
    """What an adapter computes from the weights it is put on, once they are loaded.

    Attributes:
        compute: params of the adapted model, on the host -> params.
        solves: path patterns of what it changes.
    """

    compute: Callable[[Params], Params]
    solves: tuple[str, ...]


def attach(
    model: Model, name: str, start: Callable, apply: Callable, part: Callable[[Model], Model]
) -> Model:
    """A model with parameters under `<name>/...`; its own keep their paths and values.

    Args:
        model: what is adapted.
        name: the adapter's.
        start: (params, state, inputs, key) -> {path below the name: initial value}, with key: path
            -> PRNG key.
        apply: of the adapted model.
        part: what adapts a part of the model, cut off.

    Raises:
        ValueError: the name has a slash or, from `init`, is taken.
    """
    if "/" in name:
        raise ValueError(f"the name of an adapter has no slash, got {name!r}.")

    def init(rng: jax.Array, inputs: PyTree, **options) -> tuple[Params, State]:
        params, state = model.init(rng, inputs, **options)
        if name in params:
            raise ValueError(
                f"the model has parameters under {name!r} already; give the adapter another name, "
                f"such as name={name + '_2'!r}."
            )

        own = start(params, state, inputs, lambda path: paths.key(rng, f"{name}/{path}"))
        own = paths.nest(own)
        return ({**params, name: own} if own else params), state

    def cut(block: str) -> tuple[Model, Model]:
        first, rest = model.cut(block)
        return part(first), part(rest)

    return dataclasses.replace(model, init=init, apply=apply, cut=cut, merge=None)


def leaves_of(model: Model, params: Params, name: str) -> dict[str, dict[str, Any]]:
    """{path of a layer of the model: {last part of the path: leaf}} of an adapter.

    Layers of blocks that the model does not have are left out: they are those of another part.
    """
    found: dict[str, dict[str, Any]] = {}
    for path, leaf in paths.flatten(params.get(name, {})).items():
        layer, last = path.rsplit("/", 1)
        if {*layer.split("/")[1:2]} & {*model.blocks}:
            found.setdefault(layer, {})[last] = leaf
    return found


def trace_layers(
    model: Model,
    params: Params,
    state: State,
    inputs: PyTree,
    read: Callable[[nn.Module, tuple, PyTree], Any],
) -> Mapping[str, Any]:
    """{path: read(layer, its positional inputs, its outputs)} of all layers; nothing is computed.

    Args:
        model: one whose `apply` takes `around` and `heads`.
        read: sees abstract arrays, and may keep their shapes only.
    """
    found: dict[str, Any] = {}

    def record(path: str, layer: nn.Module, call: Callable, *inputs, **options) -> PyTree:
        outputs = call(*inputs, **options)
        found[path] = read(layer, inputs, outputs)
        return outputs

    def run(params, state, inputs):
        return model.apply(params, state, inputs, around=(record,), heads={})[0]

    jax.eval_shape(run, params, state, inputs)
    return found
