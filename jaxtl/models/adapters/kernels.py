"""Adapters that change kernels: in weight space, or beside the layers that a kernel belongs to.

A kernel is seen as a matrix [rows, columns], inputs times outputs: [in, out] of a dense layer, [d,
heads * head width] and [heads * head width, d] of linen's attention, [height * width * in, out] of
a convolution, where `in` is the number of input channels of one group: 1 if it is depthwise.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from jaxtl import paths
from jaxtl.models.adapters.attach import attach, leaves_of
from jaxtl.models.adapters.layers import Layer, layers_of, look, trace_layers
from jaxtl.models.model import Adapter, Call
from jaxtl.plan import Model, Params, PyTree, Statistics

Leaves = Mapping[str, jax.Array]
Weight = Mapping[str, jax.Array]
"""{"kernel": [rows, columns], "bias": [columns]}, without bias where the layer has none."""

SHARED = "shared"
MULTIPLYING = ("magnitude", "inputs", "outputs")
"""Names of leaves that multiply a kernel: what is added to it, they multiply too."""


class Kernel(NamedTuple):
    """A kernel to adapt.

    Attributes:
        path: of the parameter.
        layer: the adapter's leaves live under `<adapter>/<layer>/`: the path without `/kernel`.
        rows, columns: of the matrix.
        dense: it is the matrix of a dense layer.
        plain: the outputs of its layer are inputs @ kernel + bias and nothing else.
    """

    path: str
    layer: str
    rows: int
    columns: int
    dense: bool
    plain: bool


class Family(NamedTuple):
    """What an adapter makes of a kernel.

    Attributes:
        start: (Kernel, matrix [rows, columns], key: leaf's name -> PRNG key) -> {name: leaf}.
        columns: (leaves, size of the kernel) -> columns of its matrix.
        weigh: (weight, leaves) -> weight with the adapter's effect; may leave out what stays.
        unweigh: its inverse, None if there is none.
        beside: (inputs [..., rows], leaves) -> [..., columns], what `weigh` adds to the outputs of
            a plain layer; None for whatever does not add.
        problem: Kernel -> why it cannot be adapted, or None.
        shared: ([Kernel], key) -> {name: leaf}, read by all kernels, under `<adapter>/shared/`.
    """

    start: Callable[..., Leaves]
    columns: Callable[[Leaves, int], int]
    weigh: Callable[[Weight, Leaves], Weight]
    unweigh: Callable[[Weight, Leaves], Weight] | None
    beside: Callable[[jax.Array, Leaves], jax.Array] | None = None
    problem: Callable[[Kernel], str | None] = lambda kernel: None
    shared: Callable[..., Leaves] | None = None


def additive(
    start: Callable, delta: Callable[[Leaves], jax.Array], beside: Callable, last: str, **more
) -> Family:
    """The family that adds `delta(leaves)` [rows, columns] to the kernel.

    Args:
        last: name of a leaf [..., columns].
    """

    def moved(sign: int) -> Callable[[Weight, Leaves], Weight]:
        return lambda weight, leaves: {"kernel": weight["kernel"] + sign * delta(leaves)}

    return Family(
        start, lambda leaves, size: leaves[last].shape[-1], moved(1), moved(-1), beside, **more
    )


def rank_problem(rank: int) -> Callable[[Kernel], str | None]:
    """Why a kernel has no low-rank adapter of this rank, if so."""

    def problem(kernel: Kernel) -> str | None:
        side = min(kernel.rows, kernel.columns)
        if not 1 <= rank <= side:
            return f"its matrix [{kernel.rows}, {kernel.columns}] takes ranks from 1 to {side}"
        return None

    return problem


def on_kernels(
    model: Model,
    targets: Sequence[str],
    family: Family,
    name: str,
    dropout: float = 0.0,
    after_loading: Callable[[Params], Params] | None = None,
    solves: Sequence[str] = (),
) -> Model:
    """The model with kernels that a family adapts.

    Args:
        model: any of `jaxtl.models`.
        targets: path patterns of kernels of the backbone, `backbone/.*/(query|value)/kernel`.
        family: what is done to them.
        name: where the adapter's parameters live.
        dropout: share of a plain layer's inputs that is dropped, in training, before `beside`.
        after_loading, solves: as in `Adapter`.

    Raises:
        ValueError: from `init`: a target matches no kernel, or a kernel cannot be adapted.
    """
    targets = tuple(targets)

    def start(
        model: Model, params: Params, statistics: Statistics, inputs: PyTree, key: Callable
    ) -> Leaves:
        flat = paths.flatten(params)
        candidates = [
            path
            for path, leaf in flat.items()
            if path.startswith("backbone/") and leaf.ndim > 1 and not path.endswith("/bias")
        ]
        if model.whole:
            paths.select(targets, candidates, "kernel")
        chosen = {path: flat[path] for path in candidates if paths.matches(targets, path)}
        if not chosen:
            return {}
        layers = trace_layers(model, params, statistics, inputs, look)
        kernels = _kernels(chosen, layers, _multiplied(params))
        _check(kernels, family, dropout)
        leaves = {}
        for kernel in kernels:
            matrix = flat[kernel.path].reshape(kernel.rows, kernel.columns)
            initial = family.start(kernel, matrix, lambda leaf, k=kernel: key(f"{k.layer}/{leaf}"))
            leaves |= {f"{kernel.layer}/{leaf}": value for leaf, value in initial.items()}
        if family.shared is not None:
            shared = family.shared(kernels, lambda leaf: key(f"{SHARED}/{leaf}"))
            leaves |= {f"{SHARED}/{leaf}": value for leaf, value in shared.items()}
        return leaves

    def change(call: Call) -> Call:
        leaves = _with_shared((call.block.name,), call.params, name)
        plain: dict[str, int] = {}
        if family.beside is not None and leaves:
            layers, multiplied = layers_of(call), _multiplied(call.params)
            beside = [p for p in leaves if p in layers and layers[p].plain and p not in multiplied]
            plain = {p: layers[p].input_axes for p in beside}
        if inside := [path for path in leaves if path not in plain]:
            block = {"backbone": {call.block.name: call.weights}}
            block = _changed(block, inside, leaves, family.weigh, family.columns)
            call = call._replace(weights=block["backbone"][call.block.name])

        def add(path: str, layer: nn.Module, inner: Callable, *given, **flags) -> PyTree:
            outputs = inner(*given, **flags)
            if path not in plain:
                return outputs
            x = given[0].astype(outputs.dtype)
            if dropout:
                rng, drawn = call.rng, f"{name}/{path}"
                rngs = {} if rng is None else {"dropout": paths.key(rng, drawn)}
                drop = nn.Dropout(dropout, deterministic=not call.train, parent=None)
                x = drop.apply({}, x, rngs=rngs)
            cast = {leaf: value.astype(outputs.dtype) for leaf, value in leaves[path].items()}
            x = x.reshape(*x.shape[: x.ndim - plain[path]], -1)
            return outputs + family.beside(x, cast).reshape(outputs.shape)

        return call._replace(around=(add, *call.around)) if plain else call

    def folding(weigh: Callable[[Weight, Leaves], Weight]) -> Callable[[Model, Params], Params]:
        def fold(model: Model, params: Params) -> Params:
            leaves = _with_shared(model.blocks, params, name)
            return _changed(params, leaves, leaves, weigh, family.columns)

        return fold

    merge = folding(family.weigh)
    unmerge = None if family.unweigh is None else folding(family.unweigh)
    return attach(model, Adapter(name, start, change, merge, unmerge, after_loading, solves))


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
    last = model.adapters[-1] if model.adapters else None
    if last is None or last.unmerge is None:
        raise ValueError(
            "this adapter cannot be taken out of merged parameters; keep those from before."
        )
    return last.unmerge(model, {**merged, last.name: adapter})


def matrix_of(params: Params, layer: str, columns: int) -> jax.Array:
    """The kernel [rows, columns] whose adapter lives at `layer`."""
    flat = paths.flatten(params)
    return flat[_kernel_path(layer, flat)].reshape(-1, columns)


def _with_shared(blocks: Sequence[str], params: Params, name: str) -> dict[str, Leaves]:
    """{layer: its leaves and the shared ones}, in some blocks."""
    shared = params.get(name, {}).get(SHARED, {})
    return {layer: {**shared, **own} for layer, own in leaves_of(blocks, params, name).items()}


def _kernel_path(layer: str, flat: Mapping[str, Any]) -> str:
    return f"{layer}/kernel" if f"{layer}/kernel" in flat else layer


def _changed(
    params: Params,
    layers: Iterable[str],
    leaves: Mapping[str, Leaves],
    change: Callable[[Weight, Leaves], Weight],
    columns_of: Callable[[Leaves, int], int],
) -> Params:
    """Params with the kernels and biases of some layers changed."""
    flat = paths.flatten(params)
    for layer in layers:
        path = _kernel_path(layer, flat)
        columns = columns_of(leaves[layer], flat[path].size)
        weight = {"kernel": flat[path].reshape(-1, columns)}
        bias = path.removesuffix("kernel") + "bias"
        if path != layer and bias in flat:
            weight["bias"] = flat[bias].reshape(columns)
        for what, value in change(weight, leaves[layer]).items():
            place = path if what == "kernel" else bias
            flat[place] = value.reshape(flat[place].shape).astype(flat[place].dtype)
    return paths.nest(flat)


def _multiplied(params: Params) -> set[str]:
    """Paths of the layers whose kernels some adapter multiplies."""
    added = {name: tree for name, tree in params.items() if name not in ("backbone", "heads")}
    places = (path.split("/", 1)[1].rsplit("/", 1) for path in paths.flatten(added) if "/" in path)
    return {place[0] for place in places if place[-1] in MULTIPLYING}


def _kernels(
    chosen: Mapping[str, jax.Array], layers: Mapping[str, Layer], multiplied: set[str]
) -> list[Kernel]:
    """Raises ValueError for kernels that stand for several layers; all of them."""
    kernels, problems = [], []
    for path, leaf in chosen.items():
        owner = path.removesuffix("/kernel")
        layer = layers.get(owner, Layer())
        if layer.kernel_axes not in (None, leaf.ndim):
            problems.append(
                f"{path} {list(leaf.shape)} holds the kernels of several layers (`nn.scan`, "
                "`nn.vmap` or `batch_dims`), which adapters cannot tell apart."
            )
            continue
        axes = leaf.ndim - 1 if layer.input_axes is None else layer.input_axes
        rows = math.prod(leaf.shape[:axes])
        dense, plain = layer.dense or leaf.ndim == 2, layer.plain and owner not in multiplied
        kernels.append(Kernel(path, owner, rows, leaf.size // rows, dense, plain))
    if problems:
        raise ValueError("\n".join(problems))
    return kernels


def _check(kernels: Sequence[Kernel], family: Family, dropout: float) -> None:
    """Raises ValueError for kernels that the family cannot adapt; all of them."""
    problems = []
    for kernel in kernels:
        if reason := family.problem(kernel):
            problems.append(f"{kernel.path}: {reason}.")
        if dropout and not kernel.plain:
            problems.append(
                f"{kernel.path}: inputs can be dropped beside `nn.Dense` and `nn.DenseGeneral` "
                "only; this kernel is adapted in weight space. Leave it out or set dropout=0."
            )
    if problems:
        raise ValueError("\n".join(problems))
