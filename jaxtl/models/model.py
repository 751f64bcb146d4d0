"""A `Model` made of linen modules: named blocks in a row, then one Dense layer for each head."""

import dataclasses
import functools
import inspect
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl import paths
from jaxtl.form import Name, checked
from jaxtl.models.checks import check_call, check_features, check_layer, sound, with_same_shapes
from jaxtl.plan import Head, Model, Params, PyTree, State


def identity(inputs: PyTree) -> PyTree:
    return inputs


@dataclasses.dataclass(frozen=True)
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
    """

    name: Name
    layer: Any
    then: Callable[[PyTree], PyTree] = identity
    call: Callable[[nn.Module, PyTree, bool], PyTree] | None = None


@checked
def from_blocks(
    blocks: Sequence[Block],
    heads: Mapping[str, Head],
    *,
    before: Callable[[PyTree], PyTree] = identity,
) -> Model:
    """The model that applies `before`, the blocks in order, and the heads to the flat features.

    Its `apply` computes the logits of `model.heads` only, so it needs no parameters of others.
    `with_heads` and `with_live` change the heads and the live statistics.

    Args:
        blocks: none for a linear model, whose features are the flattened inputs.
        heads: {name: Head}.
        before: pure function of the inputs, such as `standardize(mean, std)`.

    Raises:
        ValueError: two blocks share a name, or one is no linen module; from `init` and `apply`, a
            block cannot be called so, has other variables or gives no float array [n, ...].
    """
    for block in blocks:
        check_layer(block.name, block.layer)
    names = [block.name for block in blocks]
    if len(set(names)) < len(names):
        raise ValueError(f"the blocks of a model need different names, got {', '.join(names)}.")
    return _chain(tuple(blocks), dict(heads), before, flatten)


def from_linen(
    module: nn.Module,
    heads: Mapping[str, Head],
    *,
    name: str = "body",
    call: Callable[[nn.Module, PyTree, bool], PyTree] | None = None,
    before: Callable[[PyTree], PyTree] = identity,
) -> Model:
    """Any linen module that maps inputs [n, ...] to an array [n, ...], as a backbone of one block.

    Args:
        module: its parameters are found under `backbone/<name>/`.
        heads: {name: Head}, on the module's flattened outputs.
        name: of the block.
        call: (module, inputs, train) -> outputs, where `Block.call`'s default does not fit, such
            as `lambda module, x, train: module(x["ids"], x["mask"], is_eval=not train)`.
        before: pure function of the inputs.
    """
    return from_blocks([Block(name, module, call=call)], heads, before=before)


def flatten(inputs: jax.Array) -> jax.Array:
    """[n, ...] -> [n, features]."""
    return inputs.reshape(inputs.shape[0], -1)  # `len` is for a known n only


def standardize(mean, std) -> Callable[[jax.Array], jax.Array]:
    """inputs [..., channels] -> (inputs - mean) / std; both are scalars or one number a channel."""

    def apply(inputs: jax.Array) -> jax.Array:
        shape = (1,) * (inputs.ndim - 1) + (-1,)
        center, scale = (jnp.float32(value).reshape(shape) for value in (mean, std))
        return (inputs - center) / scale

    return apply


Around = Callable[..., PyTree]
"""(path, layer, call, *inputs, **options) -> outputs, in place of `call(*inputs, **options)`.

`path` is that of the layer's parameters, such as `backbone/layer_0/attention/query`.
"""


def with_around(model: Model, around: Sequence[Around]) -> Model:
    """The same model with functions around the call of each of its linen layers, blocks included.

    Args:
        model: from this module, or an adapter whose `apply` hands keywords on.
        around: the first is the innermost. A layer whose class calls its parent class's `__call__`
            meets them once, outside of both.
    """
    around = tuple(around)

    def apply(params: Params, state: State, inputs: PyTree, **options) -> tuple[dict, State]:
        outer = options.pop("around", ())
        return model.apply(params, state, inputs, around=(*around, *outer), **options)

    def cut(block: str) -> tuple[Model, Model]:
        first, rest = model.cut(block)
        return with_around(first, around), with_around(rest, around)

    merge = merged_by(model, lambda base: with_around(base, around))
    return dataclasses.replace(model, apply=apply, cut=cut, merge=merge)


def with_heads(model: Model, heads: Mapping[str, Head]) -> Model:
    """The same backbone with other heads.

    Args:
        model: from this module, or an adapter whose `init` and `apply` hand keywords on.
        heads: {name: Head}; their parameters live under `heads/<name>/`.
    """
    heads = dict(heads)

    def cut(block: str) -> tuple[Model, Model]:
        prefix, rest = model.cut(block)
        return prefix, with_heads(rest, heads)

    init = functools.partial(model.init, heads=heads)
    apply = functools.partial(model.apply, heads=heads)
    merge = merged_by(model, lambda base: with_heads(base, heads))
    return dataclasses.replace(model, heads=heads, init=init, apply=apply, cut=cut, merge=merge)


@dataclasses.dataclass(frozen=True)
class ChangedMerge:
    """`Model.merge` of a changed model: the model without its adapter is changed likewise."""

    merge: Callable[[Params], tuple[Model, Params]]
    change: Callable[[Model], Model]

    def __call__(self, params: Params) -> tuple[Model, Params]:
        base, params = self.merge(params)
        return self.change(base), params


def merged_by(model: Model, change: Callable[[Model], Model]) -> ChangedMerge | None:
    """The `merge` of a model that `change` makes from this one."""
    return None if model.merge is None else ChangedMerge(model.merge, change)


def with_live(model: Model, live: Sequence[str]) -> Model:
    """The same model with other live statistics; replacing the attribute alone has no effect.

    Args:
        model: from this module, or an adapter whose `apply` hands keywords on.
        live: patterns over the state's paths, such as `backbone/conv_0/norm/mean`. A BatchNorm
            layer none of whose statistics is matched uses them, unchanged, in training too.
    """
    live = tuple(live)

    def cut(block: str) -> tuple[Model, Model]:
        prefix, rest = model.cut(block)
        return with_live(prefix, live), with_live(rest, live)

    apply = functools.partial(model.apply, live=live)
    merge = merged_by(model, lambda base: with_live(base, live))
    return dataclasses.replace(model, live=live, apply=apply, cut=cut, merge=merge)


def apply_flat(
    model: Model,
    params: Params,
    state: State,
    inputs: PyTree,
    *,
    rng: jax.Array | None = None,
    train: bool = False,
) -> tuple[dict[str, Any], State]:
    """`model.apply` on a batch with a domain axis.

    Args:
        inputs: pytree of [batch, domains, ...].

    Returns:
        ({"features": [batch, domains, features], "logits": {head: [batch, domains, size]}}, state).
    """
    batch, domains = jax.tree.leaves(inputs)[0].shape[:2]
    merged = jax.tree.map(lambda leaf: leaf.reshape(batch * domains, *leaf.shape[2:]), inputs)
    output, statistics = model.apply(params, state.statistics, merged, rng=rng, train=train)
    output = jax.tree.map(lambda leaf: leaf.reshape(batch, domains, *leaf.shape[1:]), output)
    return output, state._replace(statistics=statistics)


def is_random(model: Model, params: Params, state: State, inputs: PyTree) -> bool:
    """Whether training draws random numbers in the model (dropout); nothing is computed.

    Args:
        params, state, inputs: as `model.apply` takes them, or their `jax.ShapeDtypeStruct`s.
    """
    try:
        jax.eval_shape(functools.partial(model.apply, train=True), params, state, inputs)
    except flax.errors.InvalidRngError:
        return True
    return False


def parameter_count(params: Params) -> int:
    """How many numbers the leaves hold; they may be abstract."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _chain(blocks: tuple[Block, ...], heads, before: Callable, finish: Callable) -> Model:
    everything = (".*",)

    def init(rng: jax.Array, inputs: PyTree, *, heads=heads) -> tuple[Params, State]:
        params, statistics = {"backbone": {}, "heads": {}}, {}
        x = before(inputs)
        for block in blocks:
            key = _fold(rng, f"backbone/{block.name}")
            call = functools.partial(_call, block, train=False)
            with nn.intercept_methods(sound):
                x, variables = nn.init_with_output(call, block.layer)(key, x)
            if strange := variables.keys() - {"params", "batch_stats"}:
                raise ValueError(
                    f"block {block.name!r} has variables in {', '.join(sorted(strange))}; a model "
                    "can hold those in params and batch_stats."
                )
            params["backbone"][block.name] = variables.get("params", {})
            statistics[block.name] = variables.get("batch_stats", {})
            x = block.then(x)
        if finish is flatten:
            check_features([block.name for block in blocks], inputs, x)
        for name, head in heads.items():
            key = _fold(rng, f"heads/{name}")
            params["heads"][name] = nn.Dense(head.size).init(key, flatten(x))["params"]
        return _without_empty(params), _without_empty({"backbone": statistics})

    def apply(
        params: Params,
        state: State,
        inputs: PyTree,
        *,
        rng: jax.Array | None = None,
        train: bool = False,
        heads=heads,
        live: Sequence[str] = everything,
        around: Sequence[Around] = (),
    ) -> tuple[dict[str, Any], State]:
        statistics = state.get("backbone", {})
        x = before(inputs)
        for block in blocks:
            variables = {
                "params": params.get("backbone", {}).get(block.name, {}),
                "batch_stats": statistics.get(block.name, {}),
            }
            # Linen draws a stream that it is not given, such as "dropout", from "params".
            rngs = {} if rng is None else {"params": _fold(rng, block.name)}
            mutable = ["batch_stats"] if train and block.name in statistics else []
            call = nn.apply(functools.partial(_call, block, train=train), block.layer, mutable)
            # Inside `apply`, because a compiled function ignores an interceptor around its call.
            constant = _constant_statistics(block.name, live if train else ())
            wrap = _wrap(block.name, around)
            with (
                nn.intercept_methods(sound),
                nn.intercept_methods(constant),
                nn.intercept_methods(wrap),
            ):
                x, changed = with_same_shapes(block.name, call, variables, x, rngs=rngs)
            if changed:
                statistics = {**statistics, block.name: changed["batch_stats"]}
            x = block.then(x)
        features = finish(x)
        logits = {
            name: nn.Dense(head.size).apply({"params": params["heads"][name]}, flatten(features))
            for name, head in heads.items()
        }
        state = {**state, "backbone": statistics} if statistics else state
        return {"features": features, "logits": logits}, state

    def cut(name: str) -> tuple[Model, Model]:
        names = [block.name for block in blocks]
        if name not in names:
            raise ValueError(paths.unknown("block", name, names))
        end = names.index(name) + 1
        prefix = _chain(blocks[:end], {}, before, identity)
        return prefix, _chain(blocks[end:], heads, identity, finish)

    names = tuple(block.name for block in blocks)
    return Model(names, heads, init, apply, cut, everything)


def _call(block: Block, layer: nn.Module, inputs: PyTree, *, train: bool) -> PyTree:
    if block.call is not None:
        return block.call(layer, inputs, train)
    known = {"train": train, "training": train}
    known |= {"deterministic": not train, "use_running_average": not train}
    taken = inspect.signature(type(layer).__call__).parameters
    # Linen refuses what is set on the module as well.
    flags = {k: v for k, v in known.items() if k in taken and getattr(layer, k, None) is None}
    check_call(block.name, layer, inputs, flags)
    return layer(inputs, **flags)


def _constant_statistics(block: str, live: Sequence[str]) -> Callable:
    """An interceptor: BatchNorm layers whose statistics no pattern matches use them as they are."""

    def intercept(call, args, kwargs, context):
        layer = context.module
        if not isinstance(layer, nn.BatchNorm) or context.method_name != "__call__":
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


def _fold(rng: jax.Array, path: str) -> jax.Array:
    return jax.random.fold_in(rng, zlib.crc32(path.encode()))


def _without_empty(tree: PyTree) -> dict[str, Any]:
    return paths.nest(paths.flatten(tree))
