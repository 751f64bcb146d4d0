"""Adapters that change kernels: in weight space, or beside the layers that a kernel belongs to."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxtl import paths
from jaxtl.models.adapter import Adapter, Call, Factors, attach, leaves_of
from jaxtl.models.adapters.family import Family, Kernel, Leaves, Weight
from jaxtl.models.adapters.layers import (
    Layer,
    foreign_layers,
    kind_of,
    layers_of,
    trace_layers,
)
from jaxtl.plan import Model, Params, PyTree, Statistics

SHARED = "shared"
MULTIPLYING = ("magnitude", "inputs", "outputs")
"""Names of leaves that multiply a kernel: what is added to it, they multiply too."""


def on_kernels(
    model: Model, targets: Sequence[str], family: Family, name: str, dropout: float = 0.0
) -> Model:
    """The model with kernels that a family adapts.

    Args:
        model: any of `jaxtl.models`.
        targets: path patterns of kernels of the backbone, `backbone/.*/(query|value)/kernel`.
        family: what is done to them.
        name: where the adapter's parameters live.
        dropout: share of a plain layer's inputs that is dropped, in training, before `beside`.

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
        traced = trace_layers(model, params, statistics, inputs, kind_of)
        layers = {**traced, **foreign_layers(model)}
        kernels = _kernels(chosen, layers, _multiplied(params), family, dropout)
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
        input_axes: dict[str, int] = {}  # of the layers that something is added beside
        if family.beside is not None and leaves:
            layers, multiplied = layers_of(call), _multiplied(call.params)
            input_axes = {
                path: layer.input_axes
                for path, layer in layers.items()
                if path in leaves and layer.plain and path not in multiplied
            }
        if inside := [path for path in leaves if path not in input_axes]:
            block = {"backbone": {call.block.name: call.weights}}
            block = _change(block, inside, leaves, family.weigh, family.columns)
            call = call._replace(weights=block["backbone"][call.block.name])

        def add(path: str, layer: nn.Module, run: Callable, *given, **flags) -> PyTree:
            outputs = run(*given, **flags)
            if path not in input_axes:
                return outputs
            x, place = given[0].astype(outputs.dtype), f"{name}/{path}"
            if dropout:
                drop = nn.Dropout(dropout, deterministic=not call.train, parent=None)
                rngs = {} if call.rng is None else {"dropout": paths.key(call.rng, place)}
                x = drop.apply({}, x, rngs=rngs)
            cast = {leaf: value.astype(outputs.dtype) for leaf, value in leaves[path].items()}
            x = x.reshape(*x.shape[: x.ndim - input_axes[path]], -1)
            return outputs + family.beside(x, cast).reshape(outputs.shape)

        return call._replace(around=(add, *call.around)) if input_axes else call

    def fold(weigh: Callable, model: Model, params: Params) -> Params:
        leaves = _with_shared(model.blocks, params, name)
        return _change(params, leaves, leaves, weigh, family.columns)

    def after_loading(params: Params) -> Params:
        flat = paths.flatten(params)
        for layer, leaves in leaves_of(model.blocks, params, name).items():
            kernel = flat[_kernel_path(layer, flat)]
            matrix = kernel.reshape(-1, family.columns(leaves, kernel.size))
            for leaf, value in family.solve(np.float64(matrix)).items():
                flat[f"{name}/{layer}/{leaf}"] = jnp.asarray(value, leaves[leaf].dtype)
        return paths.nest(flat)

    merge = functools.partial(fold, family.weigh)
    unmerge = family.unweigh and functools.partial(fold, family.unweigh)

    def factors(model: Model, params: Params) -> dict[str, Factors]:
        flat, kernels = paths.flatten(params), {}
        for layer, leaves in _with_shared(model.blocks, params, name).items():
            path = _kernel_path(layer, flat)
            rows = flat[path].size // family.columns(leaves, flat[path].size)
            kernels[path] = family.factors(leaves, rows)
        return kernels

    adapter = Adapter(
        name,
        start,
        change,
        merge=merge,
        unmerge=unmerge,
        after_loading=family.solve and after_loading,
        solves=[f"{name}/.*/{leaf}" for leaf in family.solves],
        constant=[f"{name}/.*/{leaf}" for leaf in family.constants],
        factors=family.factors and factors,
    )
    return attach(model, adapter)


def _with_shared(blocks: Sequence[str], params: Params, name: str) -> dict[str, Leaves]:
    """{layer: its leaves and the shared ones}, in some blocks."""
    shared = params.get(name, {}).get(SHARED, {})
    by_layer = leaves_of(blocks, params, name)
    return {layer: {**shared, **leaves} for layer, leaves in by_layer.items()}


def _kernel_path(layer: str, flat: Mapping[str, Any]) -> str:
    return f"{layer}/kernel" if f"{layer}/kernel" in flat else layer


def _change(
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
        for leaf, value in change(weight, leaves[layer]).items():
            place = path if leaf == "kernel" else bias
            flat[place] = value.reshape(flat[place].shape).astype(flat[place].dtype)
    return paths.nest(flat)


def _multiplied(params: Params) -> set[str]:
    """Paths of the layers whose kernels some adapter multiplies."""
    added = {name: tree for name, tree in params.items() if name not in ("backbone", "heads")}
    places = (path.split("/", 1)[1].rsplit("/", 1) for path in paths.flatten(added) if "/" in path)
    return {place[0] for place in places if place[-1] in MULTIPLYING}


def _kernels(
    chosen: Mapping[str, jax.Array],
    layers: Mapping[str, Layer],
    multiplied: set[str],
    family: Family,
    dropout: float,
) -> list[Kernel]:
    """The kernels to adapt; ValueError lists all that cannot be."""
    kernels, problems = [], []
    for path, leaf in chosen.items():
        owner = path.removesuffix("/kernel")
        layer = layers.get(owner, Layer())
        axes = leaf.ndim - 1 if layer.input_axes is None else layer.input_axes
        rows = math.prod(leaf.shape[:axes])
        dense, plain = layer.dense or leaf.ndim == 2, layer.plain and owner not in multiplied
        kernel = Kernel(path, owner, rows, leaf.size // rows, dense, plain)
        kernels.append(kernel)
        if layer.kernel_axes not in (None, leaf.ndim):
            problems.append(
                f"{path} {list(leaf.shape)} holds the kernels of several layers (`nn.scan`, "
                "`nn.vmap` or `batch_dims`), which adapters cannot tell apart."
            )
        elif reason := family.problem(kernel):
            problems.append(f"{path}: {reason}.")
        elif dropout and not plain:
            problems.append(
                f"{path}: inputs can be dropped beside `nn.Dense` and `nn.DenseGeneral` "
                "only; this kernel is adapted in weight space. Leave it out or set dropout=0."
            )
    if problems:
        raise ValueError("\n".join(problems))
    return kernels
