"""Adapters: parameters beside a model's; how they are put on it, found again and taken out."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxtl import paths
from jaxtl.form import Patterns, checked
from jaxtl.models.blocks import Around, Block
from jaxtl.plan import Model, Params, PyTree, Statistics


class Call(NamedTuple):
    """A block about to be called, as an adapter sees and changes it.

    Attributes:
        block: the block.
        weights: its own parameters.
        inputs: what travels into it.
        around: functions around its layers, the first is the innermost.
        statistics: its batch statistics, None if it has none.
        params: all that the model was given, the adapters' among them.
        rng, train: as the model was called.
    """

    block: Block
    weights: Params
    inputs: PyTree
    around: tuple[Around, ...]
    statistics: Statistics | None
    params: Params
    rng: jax.Array | None
    train: bool


class Factors(NamedTuple):
    """What an adapter makes of a kernel W [rows, columns]: W + scale * down @ up.

    Attributes:
        down: [rows, rank].
        up: [rank, columns].
        scale: of their product.
        magnitude: [columns], the norms that the columns of the sum are given; None if they keep
            theirs.
    """

    down: jax.Array
    up: jax.Array
    scale: float
    magnitude: jax.Array | None = None


@dataclasses.dataclass(frozen=True, eq=False)
@checked
class Adapter:
    """Parameters beside a model's, and what they do to it.

    Attributes:
        name: they live under `<name>/...`.
        start: (model under the adapter, params, statistics, inputs, path -> PRNG key) -> {path
            below the name: initial value}.
        change: Call of a block -> Call.
        merge: (model, params) -> params whose kernels contain the adapter's effect; None if there
            are no such.
        unmergeable: why there are none, as the end of a sentence.
        unmerge: (model, merged params with the adapter's own) -> params; None if it cannot be
            taken out again.
        after_loading: params of a seed, NumPy -> params, where initial values come from loaded
            weights. A stage in which they are fresh computes them before its first step.
        solves: path patterns of what `after_loading` changes.
        constant: path patterns of what never trains, such as random matrices, whatever a method's
            patterns match: so `<name>/.*` is right for every adapter.
        factors: (model, params) -> {path of a kernel: Factors}; None where there are no such.
        task: the head whose features alone it changes, see `per_task`; None for all.
    """

    name: str
    start: Callable[[Model, Params, Statistics, PyTree, Callable], Mapping[str, jax.Array]]
    change: Callable[[Call], Call]
    merge: Callable[[Model, Params], Params] | None = None
    unmergeable: str = "no weights compute the same"
    unmerge: Callable[[Model, Params], Params] | None = None
    after_loading: Callable[[Params], Params] | None = None
    solves: Patterns = ()
    constant: Patterns = ()
    factors: Callable[[Model, Params], dict[str, Factors]] | None = None
    task: str | None = None

    def acts_in(self, block: str, params: Params) -> bool:
        """Whether it has parameters for a block, or does not say for which it has."""
        room = params.get(self.name, {})
        return bool(room) and block in room.get("backbone", (block,))


def attach(model: Model, adapter: Adapter) -> Model:
    """A model with parameters under `<name>/...`; its own keep their paths and values.

    Raises:
        ValueError: the name has a slash.
    """
    if "/" in adapter.name:
        raise ValueError(f"the name of an adapter has no slash, got {adapter.name!r}.")
    return dataclasses.replace(model, adapters=(*model.adapters, adapter))


def solve(model: Model, params: Params) -> Params:
    """Parameters with those that the model's adapters compute from its kernels, as they are now.

    PiSSA's components and DoRA's magnitudes. For a training loop of your own, once the kernels have
    their values; a stage does it by itself.

    Args:
        params: with the adapters' own, whose values so far do not matter.
    """
    for adapter in model.adapters:
        if adapter.after_loading is not None:
            leaves = paths.flatten(params)
            solution = paths.flatten(adapter.after_loading(jax.device_get(params)))
            chosen = paths.select(adapter.solves, leaves)
            leaves |= {p: jax.numpy.asarray(solution[p], leaves[p].dtype) for p in chosen}
            params = paths.nest(leaves)
    return params


def leaves_of(blocks: Sequence[str], params: Params, name: str) -> dict[str, dict[str, Any]]:
    """{path of a layer in one of the blocks: {last part of the path: leaf}} of an adapter."""
    leaves: dict[str, dict[str, Any]] = {}
    below = params.get(name, {}).get("backbone", {})
    for path, leaf in paths.flatten({block: below.get(block, {}) for block in blocks}).items():
        layer, last = path.rsplit("/", 1)
        leaves.setdefault(f"backbone/{layer}", {})[last] = leaf
    return leaves


def unmerge(model: Model, merged: Params, adapter: Params) -> Params:
    """The parameters of an adapted model, from those that its `merge` gave.

    Args:
        model: the adapted model.
        merged: params of the model without its adapter, with the adapter's effect in the kernels.
        adapter: the adapter's own parameters, such as `params["lora"]`.

    Raises:
        ValueError: the adapter cannot be merged, or not be taken out again (DoRA, whose merged
            columns do not tell what their norms were): keep the parameters from before.
    """
    if not model.adapters or model.adapters[-1].unmerge is None:
        raise ValueError(
            "this adapter cannot be taken out of merged parameters; keep those from before."
        )
    last = model.adapters[-1]
    return last.unmerge(model, {**merged, last.name: adapter})


def apply_stacked(
    model: Model, params: Params, statistics: Statistics, stacked: Params, inputs: PyTree, **options
) -> dict[str, Any]:
    """The outputs of an adapted model for each of K adapters, in one program.

    The base has no axis of adapters: beside a dense layer, inputs @ W is one product for all of
    them, and only the low-rank part is theirs. An adapter in weight space needs K kernels.

    Args:
        model: an adapted model.
        params: the base's; what `stacked` holds may be missing.
        statistics: its batch statistics.
        stacked: the adapters', leaves [K, ...], such as {"lora": ...}, and whatever else differs
            from one to the next, such as {"heads": ...}.
        inputs: pytree of [n, ...], the same for all.
        **options: as `model.apply` takes them.

    Returns:
        {"features": [K, n, features], "logits": {head: [K, n, size]}}.
    """
    base = paths.flatten(params)

    def apply(adapter: Params) -> dict[str, Any]:
        params = paths.nest({**base, **paths.flatten(adapter)})
        return model.apply(params, statistics, inputs, **options)[0]

    return jax.vmap(apply)(stacked)
