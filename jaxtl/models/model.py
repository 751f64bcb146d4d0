"""A `Model` made of linen modules: named blocks in a row, then one Dense layer for each head."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl import paths
from jaxtl.form import Name, Patterns, checked
from jaxtl.models.adapter import Adapter, Call
from jaxtl.models.blocks import Around, Block, flatten, identity
from jaxtl.models.by_task import ByTask, for_each
from jaxtl.models.checks import check_features, check_layer
from jaxtl.models.foreign import Foreign
from jaxtl.plan import Head, Model, Params, PyTree, State, Statistics


@dataclasses.dataclass(frozen=True, eq=False)
@checked
class Network:
    """The `Model` of this room: what it computes is said by its fields and by nothing else.

    So `dataclasses.replace(model, heads=...)` is the same model with other heads.

    Attributes:
        backbone: its blocks, in order; none for a linear model, whose features are its inputs.
        heads: {name: Head}, on the flattened features; no logits of others are computed, so no
            parameters of others are needed.
        before: pure function of the inputs, such as `standardize(mean, std)`.
        finish: pure function of the last block's outputs, which makes the features. Where each
            task has outputs of its own, a head reads those of its name.
        live: patterns over their paths, such as `backbone/conv_0/norm/mean`: the statistics
            that follow the data while `train` is true. A BatchNorm layer none of whose statistics
            is matched uses them, unchanged, in training too.
        around: functions around each call of a linen layer, blocks included; the first is the
            innermost, and all are outside of the adapters.
        adapters: in the order in which they were put on.
        dtype: of the computation, such as "bfloat16"; None for that of the parameters. Parameters
            stay as they are (float32) and are rounded where they are used, so that small updates
            add up; batch statistics are neither rounded nor accumulated in it. Features and logits
            come back as float32.
        whole: False for the parts that `cut` makes, which may lack what an adapter names.
    """

    backbone: tuple[Block, ...]
    heads: Mapping[Name, Head]
    before: Callable[[PyTree], PyTree] = identity
    finish: Callable[[PyTree], PyTree] = flatten
    live: Patterns = (".*",)
    around: tuple[Around, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    dtype: Any = None
    whole: bool = True

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks."""
        return tuple(block.name for block in self.backbone)

    @property
    def trained(self) -> tuple[str, ...]:
        """Path patterns of the parameters that `init` gives as somebody trained them."""
        blocks = [block for block in self.backbone if isinstance(block.layer, Foreign)]
        names = [re.escape(block.name) for block in blocks if block.layer.source.is_trained]
        return tuple(f"backbone/{name}/.*" for name in names)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Heads that read features of their own; none where all read the same."""
        by_block = [block.tasks for block in self.backbone if block.tasks]
        adapted = (adapter.task for adapter in self.adapters if adapter.task is not None)
        return by_block[-1] if by_block else tuple(dict.fromkeys(adapted))

    def owned_by(self, head: str) -> tuple[str, ...]:
        """Path patterns of the parameters that no other head reads."""
        name = re.escape(head)
        apart = [re.escape(b.name) for b in self.backbone if head in b.tasks and not b.crosses]
        adapters = [re.escape(a.name) for a in self.adapters if a.task == head]
        return (
            f"heads/{name}/.*",
            *(f"backbone/{block}/.*_for_{name}(/.*)?" for block in apart),
            *(f"{adapter}/.*" for adapter in adapters),
        )

    def init(self, rng: jax.Array, inputs: PyTree) -> tuple[Params, Statistics]:
        params: Params = {"backbone": {}, "heads": {}}
        statistics: Statistics = {}
        x = self.before(inputs)
        for block in self.backbone:
            key = paths.key(rng, f"backbone/{block.name}")
            each = x.values[0] if isinstance(x, ByTask) and not block.tasks else x
            y, params["backbone"][block.name], statistics[block.name] = block.init(key, each)
            x = y if each is x else x.map(lambda _, y=y: y)  # shapes count, not values
        for name in self.heads if self.tasks else ():
            if name not in self.tasks:
                remedy = "the model that it is made from needs that head too"
                raise ValueError(f"{paths.unknown('task', name, self.tasks)} {remedy}.")
        for value in x.values if isinstance(x, ByTask) else (x,):
            if self.finish is flatten:
                check_features(self.blocks, inputs, value)
        for name, head in self.heads.items():
            key, read = paths.key(rng, f"heads/{name}"), flatten(_of_head(x, name))
            params["heads"][name] = nn.Dense(head.size).init(key, read)["params"]
        params, statistics = map(_without_empty, (params, {"backbone": statistics}))
        for i, adapter in enumerate(self.adapters):
            name = adapter.name
            if name in params:
                raise ValueError(
                    f"the model has parameters under {name!r} already; give the adapter another "
                    f"name, such as name={name + '_2'!r}."
                )

            def key(path: str, name: str = name) -> jax.Array:
                return paths.key(rng, f"{name}/{path}")

            model = dataclasses.replace(self, adapters=self.adapters[:i])
            if leaves := adapter.start(model, params, statistics, inputs, key):
                params = {**params, name: paths.nest(leaves)}
        return params, statistics

    def apply(
        self,
        params: Params,
        statistics: Statistics,
        inputs: PyTree,
        *,
        rng: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], Statistics]:
        if isinstance(statistics, State):
            raise TypeError("a model takes batch statistics: give it state.statistics")
        if self.dtype is None:
            return self._apply(params, statistics, inputs, rng, train)
        narrow = functools.partial(_narrow, self.dtype)
        output, updated = self._apply(narrow(params), statistics, narrow(inputs), rng, train)
        output = jax.tree.map(lambda x: x.astype(jnp.float32), output)
        return output, jax.tree.map(lambda x, old: x.astype(old.dtype), updated, statistics)

    def _apply(
        self,
        params: Params,
        statistics: Statistics,
        inputs: PyTree,
        rng: jax.Array | None,
        train: bool,
    ) -> tuple[dict[str, Any], Statistics]:
        weights, by_block = params.get("backbone", {}), statistics.get("backbone", {})
        x = self.before(inputs)

        def run(block: Block, x: PyTree, adapters: Sequence[Adapter]) -> PyTree:
            nonlocal by_block
            name, current = block.name, by_block.get(block.name)
            call = Call(
                block, weights.get(name, {}), x, tuple(self.around), current, params, rng, train
            )
            for adapter in reversed(adapters):
                call = adapter.change(call)
            outputs, updated = block.apply(
                call.weights,
                current,
                call.inputs,
                rng=None if rng is None else paths.key(rng, name),
                train=train,
                live=self.live,
                around=call.around,
            )
            if updated is not current:
                by_block = {**by_block, name: updated}
            return outputs

        for block in self.backbone:
            of_tasks = [a for a in self.adapters if a.task and a.acts_in(block.name, params)]
            if of_tasks and block.tasks:
                raise ValueError(
                    f"adapter {of_tasks[0].name!r} of task {of_tasks[0].task!r} acts in block "
                    f"{block.name!r}, which all tasks pass at once; let its targets be elsewhere."
                )
            if of_tasks:
                x = for_each(self.tasks, x)
            if isinstance(x, ByTask) and not block.tasks:
                outputs = [
                    run(block, value, [a for a in self.adapters if a.task in (None, name)])
                    for name, value in zip(x.names, x.values, strict=True)
                ]
                x = ByTask(x.names, tuple(outputs))
            else:
                x = run(block, x, [a for a in self.adapters if a.task is None])
        features = self.finish(x)
        logits = {}
        for name, head in self.heads.items():
            read = flatten(_of_head(x, name) if isinstance(x, ByTask) else features)
            logits[name] = nn.Dense(head.size).apply({"params": params["heads"][name]}, read)
        statistics = {**statistics, "backbone": by_block} if by_block else statistics
        return {"features": features, "logits": logits}, statistics

    def cut(self, block: str) -> tuple["Network", "Network"]:
        if block not in self.blocks:
            raise ValueError(paths.unknown("block", block, self.blocks))
        end, part = self.blocks.index(block) + 1, dataclasses.replace(self, whole=False)
        return (
            dataclasses.replace(part, backbone=self.backbone[:end], heads={}, finish=identity),
            dataclasses.replace(part, backbone=self.backbone[end:], before=identity),
        )

    def merge(self, params: Params) -> tuple["Network", Params]:
        if not self.adapters:
            return self, params
        *others, last = self.adapters
        if last.merge is None:
            raise ValueError(f"adapter {last.name!r} cannot be merged: {last.unmergeable}.")
        if last.task is not None:
            raise ValueError(
                f"adapter {last.name!r} cannot be merged: it belongs to task {last.task!r} alone, "
                "and the backbone to all; what models.of_task(model, params, "
                f"{last.task!r}) gives can be."
            )
        merged = last.merge(self, params)
        merged = {name: tree for name, tree in merged.items() if name != last.name}
        return dataclasses.replace(self, adapters=tuple(others)), merged


def _of_head(x: PyTree, name: str) -> PyTree:
    return x[name] if isinstance(x, ByTask) else x


def _narrow(dtype: Any, tree: PyTree) -> PyTree:
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def _without_empty(tree: PyTree) -> dict[str, Any]:
    return paths.nest(paths.flatten(tree))


@checked
def from_blocks(
    blocks: Sequence[Block],
    heads: Mapping[str, Head],
    *,
    before: Callable[[PyTree], PyTree] = identity,
) -> Model:
    """The model that applies `before`, the blocks in order, and the heads to the flat features.

    Args:
        blocks: none for a linear model, whose features are the flattened inputs.

    Raises:
        ValueError: two blocks share a name, or one is no linen module; from `init` and `apply`, a
            block cannot be called so, has other variables or gives no float array [n, ...].
    """
    for block in blocks:
        check_layer(block.name, block.layer)
    names = [block.name for block in blocks]
    if len(set(names)) < len(names):
        raise ValueError(f"the blocks of a model need different names, got {', '.join(names)}.")
    return Network(tuple(blocks), dict(heads), before)


def read_by(model: Model, head: str, features: jax.Array) -> jax.Array:
    """The part of a model's features [..., features] that a head reads: all, or its task's."""
    tasks = getattr(model, "tasks", ())
    if head not in tasks:
        return features
    width, place = features.shape[-1] // len(tasks), tasks.index(head)
    return features[..., place * width : (place + 1) * width]


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
