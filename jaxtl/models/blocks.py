"""One named step of a backbone: a linen module, and pure functions between modules."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl import paths
from jaxtl.form import Name, checked
from jaxtl.models.by_task import ByTask
from jaxtl.models.checks import check_call, check_widths, with_same_shapes
from jaxtl.models.foreign import Foreign
from jaxtl.plan import Params, PyTree, Statistics

Around = Callable[..., PyTree]
"""(path, layer, call, *inputs, **options) -> outputs, in place of `call(*inputs, **options)`.

`path` is that of the layer's parameters, such as `backbone/layer_0/attention/query`.
"""


def identity(inputs: PyTree) -> PyTree:
    return inputs


def flatten(inputs: jax.Array | ByTask) -> jax.Array:
    """[n, ...] -> [n, features]; of several tasks theirs side by side, in their order."""
    if isinstance(inputs, ByTask):
        return jnp.concatenate([flatten(each) for each in inputs.values], axis=1)
    return inputs.reshape(inputs.shape[0], -1)  # `len` is for a known n only


def standardize(mean, std) -> Callable[[jax.Array], jax.Array]:
    """inputs [..., channels] -> (inputs - mean) / std; both are scalars or one number a channel."""

    def apply(inputs: jax.Array) -> jax.Array:
        shape = (1,) * (inputs.ndim - 1) + (-1,)
        center, scale = (jnp.float32(value).reshape(shape) for value in (mean, std))
        return (inputs - center) / scale

    return apply


@dataclasses.dataclass(frozen=True, eq=False)
@checked
class Block:
    """One named step of a backbone.

    Attributes:
        name: parameters and batch statistics live directly under `backbone/<name>/`.
        layer: a linen module.
        then: pure function of the layer's outputs: activation, pooling.
        call: (layer, inputs, train) -> outputs. By default `layer(inputs)`, told about training by
            whichever of `train`, `training`, `deterministic` and `use_running_average` its
            `__call__` takes.
        without: path in the layer of one that is left out: it has no parameters and hands its
            inputs on.
        tasks: of a block that gives each task something of its own, these, in order: its outputs
            are a `ByTask`, and its inputs may be one. Any other block is called for each task.
        crosses: of such a block, that what a task has for itself reaches the other heads too.
    """

    name: Name
    layer: Any
    then: Callable[[PyTree], PyTree] = identity
    call: Callable[[nn.Module, PyTree, bool], PyTree] | None = None
    without: str | None = None
    tasks: tuple[Name, ...] = ()
    crosses: bool = False

    def init(self, key: jax.Array, inputs: PyTree) -> tuple[PyTree, Params, Statistics]:
        """(outputs, parameters, batch statistics).

        Raises:
            ValueError: the layer cannot be called so, has other variables, or no layer that is to
                be left out.
        """
        call, met = functools.partial(self.run, train=False), set()
        with (
            nn.intercept_methods(check_widths),
            nn.intercept_methods(_left_out(self.without, met)),
        ):
            outputs, variables = nn.init_with_output(call, self.layer)(key, inputs)
        if self.without is not None and self.without not in met:
            reason = paths.unknown("layer", self.without, met - {""})
            raise ValueError(f"block {self.name!r}, `without`: {reason}")
        if others := variables.keys() - {"params", "batch_stats"}:
            raise ValueError(
                f"block {self.name!r} has variables in {', '.join(sorted(others))}; a model "
                "can hold those in params and batch_stats."
            )
        params, statistics = (variables.get(name, {}) for name in ("params", "batch_stats"))
        return self.then(outputs), params, statistics

    def apply(
        self,
        params: Params,
        statistics: Statistics | None,
        inputs: PyTree,
        *,
        rng: jax.Array | None = None,
        train: bool = False,
        live: Sequence[str] = (".*",),
        around: Sequence[Around] = (),
    ) -> tuple[PyTree, Statistics | None]:
        """(outputs, batch statistics).

        Args:
            params, statistics: the block's own; None for a block without statistics.
            rng: for all that the block draws.
            live: patterns of the statistics that follow the data while `train` is true.
            around: functions around the call of each layer, the first is the innermost. A layer
                whose class calls its parent class's `__call__` meets them once, outside of both.
        """
        variables = {"params": params, "batch_stats": statistics or {}}
        # Linen draws a stream that it is not given, such as "dropout", from "params".
        rngs = {} if rng is None else {"params": rng}
        mutable = ["batch_stats"] if train and statistics is not None else []
        call = nn.apply(functools.partial(self.run, train=train), self.layer, mutable)
        # Inside `apply`, because a compiled function ignores an interceptor around its call.
        with (
            nn.intercept_methods(check_widths),
            nn.intercept_methods(_constant_statistics(self.name, live if train else ())),
            nn.intercept_methods(_wrap(self.name, around)),
            nn.intercept_methods(_left_out(self.without, set())),
        ):
            outputs, changed = with_same_shapes(self.name, call, variables, inputs, rngs=rngs)
        return self.then(outputs), changed["batch_stats"] if changed else statistics

    def run(self, layer: nn.Module, inputs: PyTree, *, train: bool) -> PyTree:
        """The layer's outputs, for inputs that linen has bound it for."""
        if self.call is not None:
            return self.call(layer, inputs, train)
        flags = {"train": train, "training": train}
        flags |= {"deterministic": not train, "use_running_average": not train}
        taken = inspect.signature(type(layer).__call__).parameters
        # Linen refuses what is set on the module as well.
        flags = {k: v for k, v in flags.items() if k in taken and getattr(layer, k, None) is None}
        check_call(self.name, layer, inputs, flags)
        return layer(inputs, **flags)


def _constant_statistics(block: str, live: Sequence[str]) -> Callable:
    """An interceptor: BatchNorm layers whose statistics no pattern matches use them as they are."""

    def intercept(call, args, kwargs, context):
        layer = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(layer, Foreign):

            def follows(path: str) -> bool:
                return paths.matches(live, "/".join(("backbone", block, *layer.path, path)))

            return call(*args, **{**kwargs, "live": follows})
        if not isinstance(layer, nn.BatchNorm):
            return call(*args, **kwargs)
        path = "/".join(("backbone", block, *layer.path))
        if layer.use_running_average or any(
            paths.matches(live, f"{path}/{name}") for name in ("mean", "var")
        ):
            return call(*args, **kwargs)
        # A copy, as `use_running_average` may be set on the layer and then cannot be passed too.
        constant = layer.clone(parent=None, use_running_average=True)

        def normalize(x, use_running_average=None, *, mask=None):
            return constant.apply(layer.variables, x, mask=mask)

        return normalize(*args, **kwargs)

    return intercept


def _left_out(path: str | None, met: set[str]) -> Callable:
    """An interceptor: one layer hands its inputs on; `met` collects the paths of all."""

    def intercept(call, args, kwargs, context):
        place = "/".join(context.module.path)
        if path is None or context.method_name != "__call__":
            return call(*args, **kwargs)
        met.add(place)
        return args[0] if place == path else call(*args, **kwargs)

    return intercept


def _wrap(block: str, around: Sequence[Around]) -> Callable:
    """An interceptor: functions around every layer of a block."""
    inside: set[tuple[str, ...]] = set()

    def intercept(call, args, kwargs, context):
        layer = context.module
        place = tuple(layer.path)
        if not around or context.method_name != "__call__" or place in inside:
            return call(*args, **kwargs)
        path = "/".join(("backbone", block, *place))
        for function in around:
            call = functools.partial(function, path, layer, call)
        inside.add(place)
        try:
            return call(*args, **kwargs)
        finally:
            inside.remove(place)

    return intercept
