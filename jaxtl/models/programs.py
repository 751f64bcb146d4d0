"""Programs of models that do not train: one for all models that compute the same, read in threads.

Two models are the same if their fingerprints are; one that cannot be looked into is the same as
itself alone. Which statistics are live says nothing of a model that does not train.
"""

import collections
import contextlib
import dataclasses
import functools
import math
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.extend import core as jex
from jax.interpreters import partial_eval

from jaxtl.fingerprint import of_value
from jaxtl.plan import Model, PyTree

Item, Result = TypeVar("Item"), TypeVar("Result")

MOST_ROWS = 256
"""Rows of a batch whose size nobody names, at most."""
FEWEST_ROWS = 8
ACTIVATION_BYTES = 2**23
"""On a CPU, the largest array that a batch passes through has about as many: it stays in cache."""
MOST_FORMS = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
    """What a program is traced from, beside the shapes of its arguments; equal to itself alone.

    Attributes:
        model: as it is when it does not train.
        predict: instead of `model.apply`; None for that.
        others: whatever else the program reads, such as functions.
    """

    model: Model
    predict: Callable | None
    others: tuple[Any, ...]


class _Forms:
    """The latest forms, by the identity of what they were asked for and by its fingerprint."""

    def __init__(self):
        self._by_identity: collections.OrderedDict[tuple, tuple] = collections.OrderedDict()
        self._by_digest: collections.OrderedDict[str, Form] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, model: Model, predict: Callable | None, others: tuple[Any, ...]) -> Form:
        key = tuple(map(id, (model, predict, *others)))
        with self._lock:
            if key not in self._by_identity:
                form = Form(_at_rest(model) if predict is None else model, predict, others)
                printed = of_value((form.model, predict, others))
                if not printed.opaque:
                    form = _kept(self._by_digest, printed.digest, form)
                # An id means an object as long as that lives.
                _kept(self._by_identity, key, ((model, predict, others), form))
            self._by_identity.move_to_end(key)
            return self._by_identity[key][1]


def _kept(table: collections.OrderedDict, key: Any, value: Any) -> Any:
    """What a bounded table has under a key, which is the value if it had nothing."""
    value = table.setdefault(key, value)
    table.move_to_end(key)
    while len(table) > MOST_FORMS:
        table.popitem(last=False)
    return value


def _at_rest(model: Model) -> Model:
    fields = getattr(type(model), "__dataclass_fields__", ())
    return dataclasses.replace(model, live=()) if "live" in fields else model


_forms = _Forms()


def form_of(model: Model, predict: Callable | None = None, *others: Any) -> Form:
    """The form of a model that does not train: one object for all that are the same.

    Args:
        predict: may call the model as in training, so that its `live` counts.
        others: what the program reads besides, by value like the model.
    """
    return _forms.get(model, predict, others)


class Program(NamedTuple):
    """A compiled function that can be called from any thread.

    Attributes:
        run: takes the arguments that it was compiled for, as to shape.
        reads: which leaves of the arguments it reads, in order.
    """

    run: jax.stages.Compiled
    reads: tuple[bool, ...]


def program(function: Callable, form: Form, *args: PyTree) -> Program:
    """A function compiled for arguments on the default device; once, whoever asks.

    Args:
        function: `jax.jit`ted (form, *args), with the form as static argument.
        args: arrays or their shapes.
    """
    with alone():
        traced = function.trace(form, *jax.eval_shape(lambda *args: args, *args))
        return Program(traced.lower().compile(), _reads(traced.jaxpr))


@contextlib.contextmanager
def alone(device: jax.Device | None = None) -> Iterator[None]:
    """Compile for one device, whatever mesh there is: of this process the first one, or this."""
    if jax.sharding.get_mesh().empty:
        yield
        return
    devices = np.array([device or jax.local_devices()[0]])
    with jax.set_mesh(jax.sharding.Mesh(devices, ("data",))):
        yield


def what_is_read(args: PyTree, reads: Sequence[bool]) -> PyTree:
    """The first arguments of a program on the device; of what it does not read, only the shapes.

    Args:
        args: leaves of NumPy or JAX.
        reads: as those of `Program`.
    """
    leaves, structure = jax.tree.flatten(args)
    placed = [
        jax.device_put(leaf) if is_read or is_key(leaf) else no_values(leaf.shape, leaf.dtype)
        for leaf, is_read in zip(leaves, reads, strict=False)
    ]
    return jax.tree.unflatten(structure, placed)


def is_key(leaf: jax.Array | np.ndarray) -> bool:
    """Whether a leaf holds keys of random numbers."""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended)


def no_values(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that take no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


@functools.lru_cache(MOST_FORMS)
def _reads(closed: jex.ClosedJaxpr) -> tuple[bool, ...]:
    needed = [True] * len(closed.jaxpr.outvars)
    return tuple(partial_eval.dce_jaxpr(closed.jaxpr, needed)[1])


def rows_at_once(function: Callable, form: Form, params: PyTree, state: PyTree, inputs: PyTree):
    """How many rows a batch of a program best has: a power of 2.

    Args:
        function: `jax.jit`ted (form, params, state, inputs) -> outputs.
        inputs: leaves [n, ...] of any n.
    """
    if jax.default_backend() != "cpu":
        return MOST_ROWS
    row = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), inputs)
    with alone():
        args = jax.eval_shape(lambda *args: args, params, state, row)
        jaxpr = function.trace(form, *args).jaxpr.jaxpr
    varying = set(jaxpr.invars[-len(jax.tree.leaves(row)) :])
    rows = ACTIVATION_BYTES / max(_largest(jaxpr, varying), 1)
    return max(FEWEST_ROWS, min(MOST_ROWS, 2 ** math.floor(math.log2(max(rows, 1)))))


def _largest(jaxpr: jex.Jaxpr, varying: set[jex.Var]) -> int:
    """Bytes of the largest array that depends on some variables of a program."""
    sizes = [var.aval.size * var.aval.dtype.itemsize for var in varying]
    for eqn in jaxpr.eqns:
        given = [not isinstance(atom, jex.Literal) and atom in varying for atom in eqn.invars]
        if not any(given):
            continue
        varying = varying.union(eqn.outvars)
        sizes += [
            var.aval.size * var.aval.dtype.itemsize
            for var in eqn.outvars
            if hasattr(var.aval, "dtype")
        ]
        for inner in jex.jaxprs_in_params(eqn.params):
            # Of a branch or a loop some operands are its own: the last ones are passed on.
            passed = zip(reversed(inner.invars), reversed(given), strict=False)
            sizes.append(_largest(inner, {var for var, varies in passed if varies}))
    return max([0, *sizes])


def contains(jaxpr: jex.Jaxpr, names: Collection[str]) -> bool:
    """Whether a program or one inside of it has a primitive of these names."""
    return any(
        eqn.primitive.name in names
        or any(contains(inner, names) for inner in jex.jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )


def batch_rows(count: int, most: int) -> int:
    """Rows of each batch of `count` rows, at most so many, so that little is filled up.

    One of few sizes, so that tables of other lengths share their programs.
    """
    step = max(1, most // 8)
    even = math.ceil(count / math.ceil(count / most))
    return min(most, math.ceil(even / step) * step)


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_one_cpu(place: jax.sharding.Sharding | None = None) -> bool:
    """Whether programs run on a CPU that is one device; where `place` is, if it is given."""
    return jax.default_backend() == "cpu" and (place is None or len(place.device_set) == 1)


def calls_at_a_time() -> int:
    """How many calls of a program are best under way: one for each core of a CPU, else one.

    XLA runs a convolution on a CPU, and much else, on one core.
    """
    return cores() if jax.default_backend() == "cpu" else 1


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """`map(function, items)`, several at a time; items are drawn in this thread, a few ahead.

    Args:
        function: does not return before its result is there.
        threads: how many.
    """
    if threads == 1:
        yield from map(function, items)
        return
    waiting: collections.deque = collections.deque()
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        stack.callback(lambda: [future.cancel() for future in waiting])
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
