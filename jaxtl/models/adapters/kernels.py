"""Adapters that change kernels: in weight space, or beside the layers that a kernel belongs to.

A kernel is seen as a matrix [rows, columns], inputs times outputs: [in, out] of a dense layer, [d,
heads * head width] and [heads * head width, d] of linen's attention, [height * width * in, out] of
a convolution, where `in` is the number of input channels of one group: 1 if it is depthwise.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from jaxtl import paths
from jaxtl.models.adapters.attach import attach, leaves_of, trace_layers
from jaxtl.models.model import ChangedMerge
from jaxtl.plan import Model, Params, PyTree, State

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
    whole: bool = True,
) -> Model:
    """The model with kernels that a family adapts.

    Args:
        model: any whose `apply` takes `around` and hands unknown keywords on.
        targets: path patterns of kernels of the backbone, `backbone/.*/(query|value)/kernel`.
        family: what is done to them.
        name: where the adapter's parameters live.
        dropout: share of a plain layer's inputs that is dropped, in training, before `beside`.
        whole: every target must match; a part of a model may have none.

    Raises:
        ValueError: from `init`: a target matches no kernel, or a kernel cannot be adapted.
    """
    targets = tuple(targets)
    known: list[Mapping[str, _Layer]] = []  # does not depend on values, so once is enough

    def layers(params: Params, state: State, inputs: PyTree) -> Mapping[str, _Layer]:
        if not known:
            known.append(trace_layers(model, params, state, inputs, _look))
        return known[0]

    def start(params: Params, state: State, inputs: PyTree, key: Callable) -> Leaves:
        flat = paths.flatten(params)
        candidates = [
            path
            for path, leaf in flat.items()
            if path.startswith("backbone/") and leaf.ndim > 1 and not path.endswith("/bias")
        ]
        if whole:
            paths.select(targets, candidates, "kernel")
        chosen = {path: flat[path] for path in candidates if paths.matches(targets, path)}
        if not chosen:
            return {}
        kernels = _kernels(chosen, layers(params, state, inputs), _multiplied(params))
        _check(kernels, family, dropout)
        leaves = {}
        for kernel in kernels:
            matrix = flat[kernel.path].reshape(kernel.rows, kernel.columns)
            own = family.start(kernel, matrix, lambda leaf, k=kernel: key(f"{k.layer}/{leaf}"))
            leaves |= {f"{kernel.layer}/{leaf}": value for leaf, value in own.items()}
        if family.shared is not None:
            shared = family.shared(kernels, lambda leaf: key(f"{SHARED}/{leaf}"))
            leaves |= {f"{SHARED}/{leaf}": value for leaf, value in shared.items()}
        return leaves

    def apply(
        params: Params,
        state: State,
        inputs: PyTree,
        *,
        rng: jax.Array | None = None,
        train: bool = False,
        around: Sequence[Callable] = (),
        **options,
    ) -> tuple[dict[str, Any], State]:
        leaves = _with_shared(model, params, name)
        plain: dict[str, int] = {}
        if family.beside is not None and leaves:
            found, weighed = layers(params, state, inputs), _multiplied(params)
            beside = [p for p in leaves if p in found and found[p].plain and p not in weighed]
            plain = {p: found[p].input_axes for p in beside}
        inside = [path for path in leaves if path not in plain]
        params = _changed(params, inside, leaves, family, family.weigh)

        def add(path: str, layer: nn.Module, call: Callable, *given, **flags) -> PyTree:
            outputs = call(*given, **flags)
            if path not in plain:
                return outputs
            x = given[0].astype(outputs.dtype)
            if dropout:
                rngs = {} if rng is None else {"dropout": paths.key(rng, f"{name}/{path}")}
                drop = nn.Dropout(dropout, deterministic=not train, parent=None)
                x = drop.apply({}, x, rngs=rngs)
            own = {leaf: value.astype(outputs.dtype) for leaf, value in leaves[path].items()}
            x = x.reshape(*x.shape[: x.ndim - plain[path]], -1)
            return outputs + family.beside(x, own).reshape(outputs.shape)

        around = (add, *around) if plain else around
        return model.apply(params, state, inputs, rng=rng, train=train, around=around, **options)

    def part(model: Model) -> Model:
        return on_kernels(model, targets, family, name, dropout, whole=False)

    adapted = attach(model, name, start, apply, part)
    return dataclasses.replace(adapted, merge=Merge(model, name, family))


@dataclasses.dataclass(frozen=True)
class Merge:
    """`Model.merge` of an adapter that changes kernels; `unmerge` is its inverse."""

    model: Model
    name: str
    family: Family

    def __call__(self, params: Params) -> tuple[Model, Params]:
        leaves = _with_shared(self.model, params, self.name)
        rest = {key: tree for key, tree in params.items() if key != self.name}
        return self.model, _changed(rest, leaves, leaves, self.family, self.family.weigh)


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
    merge = model.merge
    while isinstance(merge, ChangedMerge):
        merge = merge.merge
    if not isinstance(merge, Merge) or merge.family.unweigh is None:
        raise ValueError(
            "this adapter cannot be taken out of merged parameters; keep those from before."
        )
    params = {**merged, merge.name: adapter}
    leaves = _with_shared(merge.model, params, merge.name)
    return _changed(params, leaves, leaves, merge.family, merge.family.unweigh)


def matrix_of(params: Params, layer: str, columns: int) -> jax.Array:
    """The kernel [rows, columns] whose adapter lives at `layer`."""
    flat = paths.flatten(params)
    return flat[_kernel_path(layer, flat)].reshape(-1, columns)


def _with_shared(model: Model, params: Params, name: str) -> dict[str, Leaves]:
    """{layer: its leaves and the shared ones}."""
    shared = params.get(name, {}).get(SHARED, {})
    return {layer: {**shared, **own} for layer, own in leaves_of(model, params, name).items()}


def _kernel_path(layer: str, flat: Mapping[str, Any]) -> str:
    return f"{layer}/kernel" if f"{layer}/kernel" in flat else layer


def _changed(
    params: Params,
    layers: Iterable[str],
    leaves: Mapping[str, Leaves],
    family: Family,
    change: Callable[[Weight, Leaves], Weight],
) -> Params:
    """Params with the kernels and biases of some layers changed."""
    flat = paths.flatten(params)
    for layer in layers:
        path, own = _kernel_path(layer, flat), leaves[layer]
        columns = family.columns(own, flat[path].size)
        weight = {"kernel": flat[path].reshape(-1, columns)}
        bias = path.removesuffix("kernel") + "bias"
        if path != layer and bias in flat:
            weight["bias"] = flat[bias].reshape(columns)
        for what, value in change(weight, own).items():
            place = path if what == "kernel" else bias
            flat[place] = value.reshape(flat[place].shape).astype(flat[place].dtype)
    return paths.nest(flat)


class _Layer(NamedTuple):
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


def _look(layer: nn.Module, inputs: tuple, outputs: PyTree) -> _Layer:
    if isinstance(layer, nn.Dense):
        return _Layer(True, 1, 2, type(layer) is nn.Dense and len(inputs) == 1)
    if isinstance(layer, nn.DenseGeneral):
        axis, features = (
            tuple(given) if isinstance(given, Sequence) else (given,)
            for given in (layer.axis, layer.features)
        )
        plain = type(layer) is nn.DenseGeneral and len(inputs) == 1
        if plain:
            rank = inputs[0].ndim
            plain = tuple(a % rank for a in axis) == tuple(range(rank - len(axis), rank))
        kernel_axes = 0 if layer.batch_dims else len(axis) + len(features)
        return _Layer(True, len(axis), kernel_axes, plain)
    if isinstance(layer, nn.Conv | nn.ConvTranspose):
        window = layer.kernel_size
        return _Layer(kernel_axes=2 + (len(window) if isinstance(window, Sequence) else 1))
    return _Layer()


def _multiplied(params: Params) -> set[str]:
    """Paths of the layers whose kernels some adapter multiplies."""
    own = {name: tree for name, tree in params.items() if name not in ("backbone", "heads")}
    places = (path.split("/", 1)[1].rsplit("/", 1) for path in paths.flatten(own) if "/" in path)
    return {place[0] for place in places if place[-1] in MULTIPLYING}


def _kernels(
    chosen: Mapping[str, jax.Array], layers: Mapping[str, _Layer], multiplied: set[str]
) -> list[Kernel]:
    """Raises ValueError for kernels that stand for several layers; all of them."""
    kernels, problems = [], []
    for path, leaf in chosen.items():
        owner = path.removesuffix("/kernel")
        layer = layers.get(owner, _Layer())
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
