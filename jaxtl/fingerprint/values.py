"""What a value of any type holds, without asking the value's own code."""

import collections
import copyreg
import enum
import functools
import logging
import sys
import threading
import types
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from jaxtl.fingerprint.graph import Graph, Part, Unordered, text
from jaxtl.fingerprint.host_code import (
    Attributes,
    Bytecode,
    attributes,
    describe_bytecode,
    describe_class,
    describe_function,
    describe_module,
    library_of_module,
)

BUILTINS = (
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
PLACES = (jax.sharding.Sharding, jax.sharding.Mesh, jax.sharding.AbstractMesh, jax.Device)
# What libraries keep on their objects beside what these compute: source lines, hashes of strings.
SAYS_NOTHING = {"debug_info", "index_map_src_info", "origin", "_hash"}
NUMBERS = {int: int.__int__, float: float.__float__, str: str.__str__}
NUMBERLESS = (
    type(threading.Lock()),
    type(threading.RLock()),
    logging.Logger,
    type(jex.get_opaque_trace_state(convention="nnx")),  # each NNX module has one
)
HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE


class _WithDict:
    __slots__ = ("__dict__",)


class _WithWeakref:
    __slots__ = ("__weakref__",)


WORD = tuple.__itemsize__
SIZES = {
    "__dict__": _WithDict.__basicsize__ - object.__basicsize__,
    "__weakref__": _WithWeakref.__basicsize__ - object.__basicsize__,
}


def opaque(graph: Graph, value: Any, where: str) -> list[Part]:
    """The parts of what cannot be looked into, which is noted."""
    kind = type(value)
    name = f"{type.__getattribute__(kind, '__module__')}.{kind.__qualname__}"
    what = "traced value" if issubclass(kind, jax.core.Tracer) else f"object of type {name}"
    graph.opaque.add(f"{what} in {where}")
    return [b"opaque" + text(name)]


def describe_array(value: Any) -> list[Part]:
    """An array by dtype, shape and bits; of JAX, NumPy, or of random keys.

    Raises:
        ValueError: parts of it lie in another process, or it holds objects.
    """
    if isinstance(value, jax.Array):
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            kind = str(value.dtype)
            return [b"keys" + text(kind), *describe_array(jax.random.key_data(value))]
        if not value.is_fully_addressable:
            if not value.is_fully_replicated:
                raise ValueError("an array that lies in several processes")
            value = value.addressable_data(0)
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise ValueError("the bits of an array of objects are addresses")
    return [b"array" + text(str(array.dtype), str(array.shape)), array.tobytes()]


def describe_value(graph: Graph, value: Any, where: str) -> Sequence[Part]:
    """The parts of a value, see `Graph`; what cannot be looked into is noted there.

    Raises:
        whatever an odd object makes of being read.
    """
    kind = type(value)
    if kind is Bytecode:
        return describe_bytecode(graph, value, where)
    if kind is Attributes:
        return describe_module(graph, value, where)
    if kind is types.FunctionType:
        return describe_function(graph, value, where)
    if issubclass(kind, type):
        return describe_class(graph, value, where)
    if isinstance(value, jax.core.Tracer):
        return opaque(graph, value, where)
    if isinstance(value, jax.Array):
        weak = getattr(value, "weak_type", False)  # keys have no such thing
        return [b"jax", b"%d" % weak, *describe_array(value)]
    if kind in (np.ndarray, np.memmap) and not value.dtype.hasobject:
        return describe_array(value)
    if isinstance(value, PLACES):
        return [b"place"]
    if issubclass(kind, NUMBERLESS):
        return [b"no number"]
    if published := _published(value):
        return [published]
    return _describe_parts(graph, value, where)


def _published(value: Any) -> bytes | None:
    """The name and version of what a library lets be imported."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(name, str)):
        return None
    library, target = library_of_module(module), sys.modules.get(module)
    for part in name.split("."):
        target = getattr(target, "__dict__", {}).get(part)
    return b"library object" + text(library, module, name) if library and target is value else None


def _describe_parts(graph: Graph, value: Any, where: str) -> Sequence[Part]:
    """A value that holds others, by what it is and what they are."""
    kind = type(value)

    def part(item: Any) -> Part:
        return graph.part(item, where)

    if kind is types.MethodType:
        return [b"method", part(value.__func__), part(value.__self__)]
    if issubclass(kind, BUILTINS):
        owner = getattr(value, "__self__", None) or getattr(value, "__objclass__", None)
        if isinstance(owner, types.ModuleType):
            owner = None
        module = str(getattr(value, "__module__", None))
        library = library_of_module(module) or ""
        return [b"builtin" + text(library, module, value.__qualname__), part(owner)]
    if kind is property:
        return [b"property", *map(part, (value.fget, value.fset, value.fdel))]
    if kind in (staticmethod, classmethod):
        return [kind.__name__.encode(), part(value.__func__)]
    if kind is functools.cached_property:
        return [b"property", part(value.func)]
    if issubclass(kind, functools.partial):
        parts = [b"partial", part(kind), part(value.func), *map(part, value.args)]
        return parts + attributes(graph, value.keywords, where)
    if issubclass(kind, enum.Enum):
        return [b"member" + text(value._name_), part(kind), part(value._value_)]
    if issubclass(kind, PurePath):
        return [b"path" + text(str(value))]
    if kind is types.ModuleType:
        return _describe_module(graph, value)
    if kind is jax.tree_util.PyTreeDef:
        parts = [b"tree %d" % value.num_leaves, *map(part, value.node_data() or ())]
        return [*parts, *map(part, value.children())]
    return _describe_container(graph, value, where) or _describe_instance(graph, value, where)


def _describe_container(graph: Graph, value: Any, where: str) -> Sequence[Part] | None:
    """A container or a number of a class of one's own; None for anything else.

    The methods that iterate are those of the builtin class, whatever a subclass makes of them.
    """
    kind = type(value)

    def part(item: Any) -> Part:
        return graph.part(item, where)

    parts: list[Part] = [b"items", part(kind)]
    if issubclass(kind, types.MappingProxyType):
        return [*parts, part(dict(value))]
    if issubclass(kind, dict):
        ordered = collections.OrderedDict if issubclass(kind, collections.OrderedDict) else dict
        parts += [part(item) for pair in ordered.items(value) for item in pair]
        if issubclass(kind, collections.defaultdict):
            parts += [b"default", part(value.default_factory)]
    elif issubclass(kind, (list, tuple)):
        iterate = list.__iter__ if issubclass(kind, list) else tuple.__iter__
        parts += map(part, iterate(value))
    elif issubclass(kind, (set, frozenset)):
        iterate = set.__iter__ if issubclass(kind, set) else frozenset.__iter__
        return Unordered([*parts, *map(part, iterate(value))])
    elif kind is np.ndarray and value.dtype == object:
        parts += [text(str(value.shape)), *map(part, value.ravel().tolist())]
    elif exact := next((NUMBERS[base] for base in kind.__mro__ if base in NUMBERS), None):
        parts.append(part(exact(value)))
    else:
        return None
    return parts + _attributes(graph, value, where)


def _describe_instance(graph: Graph, value: Any, where: str) -> Sequence[Part]:
    """An object by its class and attributes, or by what it would be pickled as."""
    kind = type(value)
    if not _has_hidden_state(kind):
        return [b"instance", graph.part(kind, where), *_attributes(graph, value, where)]
    wrapped = getattr(value, "__wrapped__", None)
    if wrapped is not None:  # jax.jit, functools.lru_cache
        return [b"wrapper", graph.part(kind, where), graph.part(wrapped, where)]
    if not library_of_module(kind.__module__):
        return opaque(graph, value, where)
    reduce = copyreg.dispatch_table.get(kind) or (lambda value: kind.__reduce_ex__(value, 2))
    reduced = reduce(value)
    if isinstance(reduced, str):
        return [b"name" + text(reduced), graph.part(kind, where)]
    items = [list(item) if i > 2 and item is not None else item for i, item in enumerate(reduced)]
    return [b"reduced", *(graph.part(item, where) for item in items)]


def _attributes(graph: Graph, value: Any, where: str) -> list[Part]:
    """The instance's own attributes and slots; a dataclass of a library by its fields alone."""
    kind = type(value)
    values = dict(getattr(value, "__dict__", {}))
    for cls in kind.__mro__:
        for name, member in vars(cls).items():
            if isinstance(member, types.MemberDescriptorType) and cls.__flags__ & HEAP_TYPE:
                try:
                    values[name] = member.__get__(value)
                except AttributeError:  # a slot that nothing was written to
                    continue
            elif isinstance(member, functools.cached_property):
                values.pop(name, None)
    in_library = [base for base in kind.__mro__[:-1] if library_of_module(base.__module__)]
    if in_library:
        fields = getattr(kind, "__dataclass_fields__", values)  # linen keeps scopes beside them
        values = {
            name: item
            for name, item in values.items()
            if name in fields and name not in SAYS_NOTHING and name != "parent"
        }
    return attributes(graph, values, f"attribute {{}} of {kind.__qualname__}")


def _has_hidden_state(kind: type) -> bool:
    """Whether C code keeps more in an object than Python shows in its attributes."""
    for cls in kind.__mro__[:-1]:
        shown = sum(isinstance(v, types.MemberDescriptorType) for v in vars(cls).values()) * WORD
        shown += sum(size for name, size in SIZES.items() if name in vars(cls))
        if not cls.__flags__ & HEAP_TYPE or cls.__basicsize__ > cls.__base__.__basicsize__ + shown:
            return True
    return False


def _describe_module(graph: Graph, module: types.ModuleType) -> list[Part]:
    if library := library_of_module(module.__name__):
        return [b"library" + text(library, module.__name__)]
    names = sorted(name for name in vars(module) if not name.startswith("__"))
    return describe_module(graph, Attributes(module, tuple(names)), "")
