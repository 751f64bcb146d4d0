"""Bottleneck adapters: small networks in or beside the layers of a transformer."""

import math
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl.models.adapter import Adapter, Call, attach, leaves_of
from jaxtl.models.adapters.layers import target_layers, trace_layers
from jaxtl.plan import Model, Params, PyTree, Statistics

Activation = Callable[[jax.Array], jax.Array]


def houlsby(
    model: Model,
    targets: Sequence[str] = (r"backbone/.*/attention/out", r"backbone/.*/mlp/down"),
    size: int = 64,
    activation: Activation = nn.gelu,
    name: str = "houlsby",
) -> Model:
    """h + up(activation(down(h))) in the place of h, the outputs of some layers.

    The default is after attention and after the dense network of each transformer layer, before
    their dropout and the residual connection (the paper puts it after the dropout). `up` starts as
    0, so that the model starts as it was; the paper starts near it. An adapter of width d has 2 *
    size * d + size + d parameters, `<name>/<layer>/{down,up}/{kernel,bias}`. It cannot be merged.
    The paper trains the layer norms too: name them in the method's patterns.

    Args:
        size: of the bottleneck.
        activation: between its two layers.

    Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", 2019. arXiv:1902.00751,
    Section 2.1.
    """
    return _bottleneck(model, targets, size, activation, name)


def parallel(
    model: Model,
    targets: Sequence[str] = (r"backbone/.*/mlp",),
    size: int = 64,
    scale: float = 4.0,
    activation: Activation = nn.relu,
    name: str = "parallel",
) -> Model:
    """f(x) + scale * up(activation(down(x))) in the place of f(x), for some layers f.

    The default is beside the dense network of each transformer layer. `up` starts as 0, so that the
    model starts as it was; `down` as in LoRA. Parameters as in `houlsby`; cannot be merged.

    Args:
        size, activation: as in `houlsby`.
        scale: of what is added.

    He et al., "Towards a Unified View of Parameter-Efficient Transfer Learning", 2022.
    arXiv:2110.04366, Section 3.3 ("scaled parallel adapter").
    """
    return _bottleneck(model, targets, size, activation, name, scale)


def _bottleneck(
    model: Model,
    targets: Sequence[str],
    size: int,
    activation: Activation,
    name: str,
    scale: float | None = None,
) -> Model:
    """A network after layers, or beside them.

    Args:
        scale: of the network's outputs, which then reads the layer's inputs; None for one that
            reads its outputs.
    """
    targets = tuple(targets)

    def widths(layer: nn.Module, inputs: tuple, outputs: PyTree) -> tuple[int, int] | None:
        read = outputs if scale is None or not inputs else inputs[0]
        if not (isinstance(read, jax.Array) and isinstance(outputs, jax.Array)):
            return None
        return read.shape[-1], outputs.shape[-1]

    def start(
        model: Model, params: Params, statistics: Statistics, inputs: PyTree, key: Callable
    ) -> dict[str, jax.Array]:
        traced = trace_layers(model, params, statistics, inputs, widths)
        layers = target_layers(traced, targets, "layer with an array as its output", model.whole)
        leaves = {}
        for path, (wide_in, wide_out) in layers.items():
            bound = 1 / math.sqrt(wide_in)
            rng = key(f"{path}/down/kernel")
            leaves |= {
                f"{path}/down/kernel": jax.random.uniform(
                    rng, (wide_in, size), minval=-bound, maxval=bound
                ),
                f"{path}/down/bias": jnp.zeros(size),
                f"{path}/up/kernel": jnp.zeros((size, wide_out)),
                f"{path}/up/bias": jnp.zeros(wide_out),
            }
        return leaves

    def change(call: Call) -> Call:
        leaves = leaves_of((call.block.name,), call.params, name)

        def insert(path: str, layer: nn.Module, run: Callable, *given, **flags) -> PyTree:
            outputs = run(*given, **flags)
            if f"{path}/down" not in leaves:
                return outputs
            hidden = _dense(leaves[f"{path}/down"], outputs if scale is None else given[0])
            added = _dense(leaves[f"{path}/up"], activation(hidden))
            return outputs + (added if scale is None else scale * added)

        return call._replace(around=(insert, *call.around))

    why = "its network has an activation between its two layers, which no matrix has"
    return attach(model, Adapter(name, start, change, unmergeable=why))


def _dense(leaves: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    kernel, bias = (leaves[leaf].astype(x.dtype) for leaf in ("kernel", "bias"))
    outputs = x.reshape(-1, x.shape[-1]) @ kernel + bias[None]
    return outputs.reshape(*x.shape[:-1], -1)
