"""The outputs of a model's first blocks as a traced program: what it reads, and which one it is."""

import collections
import contextlib
import functools
import os
import platform
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.extend import core as jex
from jax.interpreters import partial_eval

from jaxtl.features.digests import OfObjects
from jaxtl.fingerprint import combined, of_jaxpr, of_value
from jaxtl.models import Network, to_float
from jaxtl.models.programs import alone, contains
from jaxtl.paths import flatten, nest
from jaxtl.plan import Model, Params, PyTree, Statistics

ROWS_ON_CPU, ROWS_ELSEWHERE = 16, 64
"""Rows in one call. On two cores MiniLM takes 16.2 ms a row with 8 or 16 of them, 17.4 with 32 and
21.5 with 64, EfficientNet-Lite0 3.3, 3.9 and 4.2; a small network of convolutions does not care."""
MOST_TRACED, MOST_COMPILED = 64, 32
"""Programs that are remembered, those that were asked for last."""


class Program(NamedTuple):
    """The features of one batch of rows.

    Attributes:
        runner: what computes them, of always as many rows.
        reads: paths of the parameters and batch statistics that it needs, in the order in which it
            takes them.
        is_random: whether features depend on the random key.
        moves_statistics: whether it gives batch statistics other than those that it got.
        features: abstract, of one batch.
        identity: equal for programs that compute the same, without what the features do not need.
        is_shared: whether that holds for programs of other processes too.
        multiplies: whether a matrix is multiplied or convolved with, or something is called that
            nobody can look into: else computing the features again is faster than storing them.
    """

    runner: "Runner"
    reads: tuple[str, ...]
    is_random: bool
    moves_statistics: bool
    features: PyTree
    identity: str
    is_shared: bool
    multiplies: bool

    def leaves_of(self, params: Params, statistics: Statistics) -> list[Any]:
        """Those that are read."""
        flat = flatten(params) | flatten(statistics)
        return [flat[path] for path in self.reads]


class Runner:
    """A program compiled for the places where its weights lie.

    Args:
        jaxpr: (leaves that are read, leaves of the inputs as the model reads them) -> leaves of the
            features.
        form: of the features.
    """

    def __init__(self, jaxpr: jex.ClosedJaxpr, form: Any):
        compute = jex.jaxpr_as_fun(jaxpr)

        def features_of_rows(leaves: Sequence[jax.Array], inputs: PyTree) -> PyTree:
            return form.unflatten(compute(*leaves, *jax.tree.leaves(to_float(inputs))))

        self._jitted = jax.jit(features_of_rows)
        self._compiled: dict[Any, Callable[..., PyTree]] = {}

    def compile(self, leaves: Sequence[jax.Array], batch: PyTree) -> Callable[..., PyTree]:
        """(leaves, inputs [rows, ...] as they are stored) -> features; for inputs like these."""
        types = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(batch)]
        key = (tuple(leaf.sharding for leaf in leaves), tuple(types))
        if key not in self._compiled:
            devices = {device for leaf in leaves for device in leaf.sharding.device_set}
            place = alone(*devices) if len(devices) == 1 else contextlib.nullcontext()
            with place:
                self._compiled[key] = self._jitted.lower(leaves, batch).compile()
        return self._compiled[key]


def batch_rows() -> int:
    """Rows of each call of a program."""
    return ROWS_ON_CPU if jax.default_backend() == "cpu" else ROWS_ELSEWHERE


def trace(
    first: Model, params: Params, statistics: Statistics, inputs: PyTree, *, train: bool
) -> Program:
    """The program of a model's features; traced once for equal models, however often it is asked.

    Args:
        first: deterministic first blocks, or a whole model.
        params, statistics: of one replica, or abstract.
        inputs: [n, ...] as they are stored or as the model reads them, or abstract.
        train: whether it is applied as in training, with a random key.
    """
    # Other leaves of other arms would be another program; a model of one's own may read them.
    if not first.heads and type(first) is Network:
        params = {name: tree for name, tree in params.items() if name != "heads"}
    rows = batch_rows()
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), inputs)
    args = (params, statistics, jax.eval_shape(to_float, batch))
    args = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args)
    leaves, form = jax.tree.flatten(args)
    shapes = tuple((x.shape, str(x.dtype)) for x in leaves)
    key = (_model_key(first), form, shapes, train, jax.config.jax_default_matmul_precision)
    with _lock:
        if (program := _traced.get(key)) is None:
            program = _traced[key] = _trace(first, *args, train)
        _keep(_traced, key, MOST_TRACED)
    return program


class Parts(NamedTuple):
    """A model in two.

    Attributes:
        first: up to a block, without heads.
        rest: the other blocks and the heads, which start from its features.
    """

    first: Model
    rest: Model


def cut(model: Model, block: str) -> Parts:
    """`model.cut(block)`, the same objects each time."""
    by_block = _parts.get(model, dict)
    if block not in by_block:
        by_block[block] = Parts(*model.cut(block))
    return by_block[block]


_parts: OfObjects[dict[str, Parts]] = OfObjects()
_lock = threading.RLock()
_traced: collections.OrderedDict[Any, Program] = collections.OrderedDict()
_runners: collections.OrderedDict[str, Runner] = collections.OrderedDict()
_model_keys: OfObjects[str] = OfObjects()


def _model_key(first: Model) -> Any:
    """The same for models that compute the same; where nobody can tell, for one object."""

    def key() -> Any:
        fingerprint = of_value(first)
        return Unlike() if fingerprint.opaque else fingerprint.digest

    return _model_keys.get(first, key)


class Unlike:
    """Equal to nothing but itself."""


def _keep(remembered: collections.OrderedDict, key: Any, most: int) -> None:
    remembered.move_to_end(key)
    while len(remembered) > most:
        remembered.popitem(last=False)


def _trace(
    first: Model, params: Params, statistics: Statistics, inputs: PyTree, train: bool
) -> Program:
    def run(params, statistics, rng, inputs):
        options = {"rng": rng, "train": True} if train else {}
        output, updated = first.apply(params, statistics, inputs, **options)
        return output["features"], updated

    args = (params, statistics, jax.random.key(0), inputs)
    closed, (features, _) = jax.make_jaxpr(run, return_shape=True)(*args)
    size = len(jax.tree.leaves(features))
    needed = [i < size for i in range(len(closed.jaxpr.outvars))]
    # What the features do not need goes: so training and evaluation meet where they are equal.
    jaxpr, used = partial_eval.dce_jaxpr(closed.jaxpr, needed)
    names = [{path: path for path in flatten(tree)} for tree in (params, statistics)]
    paths = jax.tree.leaves([nest(each) for each in names])
    begin, weights = len(names[0]), len(paths)
    # The program gets all of the inputs: a leaf that it does not read changes nothing.
    instantiate = [*used[: weights + 1], *(True for _ in used[weights + 1 :])]
    jaxpr, used = partial_eval.dce_jaxpr(closed.jaxpr, needed, instantiate)
    closed_part = jex.ClosedJaxpr(jaxpr, closed.consts)
    form = jax.tree.structure(features)
    fingerprint = combined(of_jaxpr(closed_part), str(form))
    identity = uuid.uuid4().hex if fingerprint.opaque else fingerprint.digest
    if identity not in _runners:
        _runners[identity] = Runner(closed_part, form)
    _keep(_runners, identity, MOST_COMPILED)
    return Program(
        runner=_runners[identity],
        reads=tuple(path for path, is_used in zip(paths, used, strict=False) if is_used),
        is_random=used[weights],
        moves_statistics=closed.jaxpr.outvars[size:] != closed.jaxpr.invars[begin:weights],
        features=features,
        identity=identity,
        is_shared=not fingerprint.opaque,
        multiplies=_multiplies(jaxpr),
    )


def _multiplies(jaxpr: jex.Jaxpr) -> bool:
    names = {"dot_general", "conv_general_dilated", "ragged_dot_general"}
    return contains(jaxpr, names | {"pure_callback", "io_callback", "ffi_call", "pallas_call"})


@functools.cache
def surroundings() -> str:
    """What besides a program and its arguments decides the last bits of features."""
    import jaxlib

    device = jax.devices()[0]
    words = [jax.__version__, jaxlib.__version__, device.platform, device.device_kind]
    words += [getattr(device.client, "platform_version", ""), os.environ.get("XLA_FLAGS", "")]
    if device.platform == "cpu":  # a home folder may be that of several machines
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        words += [platform.machine(), platform.processor(), str(count), _instructions()]
    return "\n".join(words)


def _instructions() -> str:
    """What the processor can do, where the system says."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    lines = [line for line in text.split("\n") if line.startswith(("flags", "Features", "model"))]
    return "\n".join(sorted(set(lines)))
