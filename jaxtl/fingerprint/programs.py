"""What a program or a piece of host code computes, as a digest: equal digests, equal numbers.

A program is digested as it was traced, with all its constants, and so is the host code that it
calls back. Names, source lines, comments, meshes and memory addresses leave no trace. A program is
one that is run, not differentiated: rules of derivatives that are still in it no longer matter.
"""

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core as jex

from jaxtl.fingerprint.graph import Graph, Part
from jaxtl.fingerprint.values import describe_array, describe_value, opaque

PLACES = {"sharding", "out_sharding", "ctx_mesh", "context_mesh"}
JIT = "in_shardings out_shardings in_layouts out_layouts donated_invars inline keep_unused name"
SAYS_NOTHING = {  # of where, how fast and under which name: none of it changes a number
    "jit": set(JIT.split()),
    "closed_call": {"name"},
    "name": {"name"},
    "shard_map": {"mesh"},
    "device_put": {"devices", "srcs", "copy_semantics"},
    "debug_callback": {"effect", "partitioned"},
    "custom_jvp_call": {"jvp_jaxpr_fun", "symbolic_zeros"},
    "custom_vjp_call": {"fwd_jaxpr_thunk", "bwd", "out_trees", "symbolic_zeros"},
    "pallas_call": {"name", "name_and_src_info", "debug", "cost_estimate", "metadata", "mesh"},
}
SAME_NUMBERS = {"sharding_constraint", "reshard", "mesh_cast"}
FEW = 64


class Fingerprint(NamedTuple):
    """What something computes.

    Attributes:
        digest: 16 hexadecimal digits, the same in every process.
        opaque: what could not be looked into, in words; where there is any, equal digests say
            nothing.
    """

    digest: str
    opaque: tuple[str, ...] = ()


class Constant(NamedTuple):
    """An array that a program holds, of NumPy or of JAX."""

    value: Any


def of_jaxpr(closed: jex.ClosedJaxpr) -> Fingerprint:
    """The fingerprint of a traced program."""
    return _fingerprint(closed, "the program")


def of_program(function: Callable, *args: Any) -> Fingerprint:
    """The fingerprint of a function as it is traced on arguments, which may be abstract.

    The names of entries in its arguments and results count too.

    Raises:
        whatever the function raises.
    """
    return of_traced(*jax.make_jaxpr(function, return_shape=True)(*args), *args)


def of_traced(program: jex.ClosedJaxpr, results: Any, *args: Any) -> Fingerprint:
    """What `of_program` gives of a function that was traced.

    Args:
        results: what it returns, abstract.
        args: those that it was traced on.
    """
    return combined(of_jaxpr(program), _entries(args), _entries(results))


def of_value(value: Any) -> Fingerprint:
    """The fingerprint of host code or of any value; it never raises.

    A function counts by its bytecode and by what that reads: constants, defaults, closure, globals,
    functions of jaxtl and of one's own modules. What a library defines counts by its name and the
    library's version. The order of a dict counts, that of a set does not.
    """
    return _fingerprint(value, "the value")


def combined(*items: Any) -> Fingerprint:
    """One fingerprint of several, or of values."""
    fingerprints = [item if isinstance(item, Fingerprint) else of_value(item) for item in items]
    digests = "".join(item.digest for item in fingerprints).encode()
    opaque = {words for item in fingerprints for words in item.opaque}
    return Fingerprint(hashlib.sha256(digests).hexdigest()[:16], tuple(sorted(opaque)))


def _fingerprint(value: Any, where: str) -> Fingerprint:
    graph = Graph(_describe)
    digest = graph.digest(value, where)
    return Fingerprint(digest, tuple(sorted(graph.opaque)))


def _entries(tree: Any) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(tree))


def _describe(graph: Graph, value: Any, where: str) -> Sequence[Part]:
    kind = type(value)
    if kind is jex.ClosedJaxpr:
        return _describe_program(graph, value.jaxpr, value.consts)
    if kind is jex.Jaxpr:
        return _describe_program(graph, value, ())
    try:
        if kind is Constant:
            return describe_array(value.value)
        if issubclass(kind, jax.core.AbstractValue):
            return [_aval(value)]
        if issubclass(kind, jex.Primitive):
            return [b"primitive", value.name.encode()]
        return describe_value(graph, value, where)
    except Exception:  # a deleted array; whatever an odd object makes of being read
        return opaque(graph, value.value if kind is Constant else value, where)


def _describe_program(graph: Graph, jaxpr: jex.Jaxpr, consts: Sequence[Any]) -> list[Part]:
    """The equations whose results matter, with their variables numbered in order."""
    names: dict[Any, list[Part]] = {}
    numbers = itertools.count()
    arrays = dict(zip(jaxpr.constvars, consts, strict=False))
    parts: list[Part] = [b"program"]

    def define(variable: Any) -> None:
        names[variable] = [b"v%d" % next(numbers)]
        parts.append(_aval(variable.aval))

    def read(atom: Any) -> list[Part]:
        if isinstance(atom, jex.Literal):
            return [_aval(atom.aval), _array(graph, atom.val, atom.aval)]
        if atom not in names and atom in arrays:
            names[atom] = [_aval(atom.aval), _array(graph, arrays[atom], atom.aval)]
        return names[atom]

    for variable in jaxpr.constvars[len(arrays) :] + jaxpr.invars:
        define(variable)
    for equation in _live_equations(jaxpr):
        name, params = equation.primitive.name, equation.params
        if name in SAME_NUMBERS:
            names[equation.outvars[0]] = read(equation.invars[0])
            continue
        parts.append(name.encode())
        ignored = SAYS_NOTHING.get(name, ())
        for key in sorted(params):
            if key not in PLACES and key not in ignored:
                parts += [key.encode(), graph.part(params[key], name)]
        for atom in equation.invars:
            parts += read(atom)
        parts.append(b"->")
        for variable in equation.outvars:
            define(variable)
    parts.append(b"return")
    for atom in jaxpr.outvars:
        parts += read(atom)
    return parts


def _array(graph: Graph, value: Any, aval: Any) -> Part:
    """A constant by its content; small ones in place."""
    if isinstance(value, (np.ndarray, np.generic, int, float, complex)):
        array = np.asarray(value, aval.dtype)
        if array.size < FEW:
            return array.tobytes()
    return graph.part(Constant(value), "a constant of a program", ("constant", id(value)))


def _aval(aval: Any) -> bytes:
    kind = b"" if type(aval) is jax.core.ShapedArray else type(aval).__name__.encode()
    dtype, shape = _spelled(getattr(aval, "dtype", None)), str(getattr(aval, "shape", "")).encode()
    return b"%b:%b%b%d" % (kind, dtype, shape, getattr(aval, "weak_type", False))


@functools.cache
def _spelled(dtype: Any) -> bytes:
    return str(dtype).encode()


def _live_equations(jaxpr: jex.Jaxpr) -> Iterator[jex.JaxprEqn]:
    """The equations that a result or an effect needs, in order."""
    needed = {atom for atom in jaxpr.outvars if isinstance(atom, jex.Var)}
    result = []
    for equation in reversed(jaxpr.eqns):
        if not needed.isdisjoint(equation.outvars) or (equation.effects and not _prints(equation)):
            result.append(equation)
            needed.update(atom for atom in equation.invars if isinstance(atom, jex.Var))
    return reversed(result)


def _prints(equation: jex.JaxprEqn) -> bool:
    """Whether the effects of an equation are those of `jax.debug.print` alone."""
    if equation.primitive.name == "debug_print":
        return True
    inner = list(jex.jaxprs_in_params(equation.params))
    effects = [e for jaxpr in inner for e in jaxpr.eqns if e.effects]
    return bool(effects) and all(_prints(e) for e in effects)
