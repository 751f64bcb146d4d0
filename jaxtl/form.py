"""The form of what users write: a value fits the annotation of its field, or is refused.

The annotation is the rule. `int` is a whole number (NumPy's too; True is none), `float` a number,
`Sequence[str]` several texts and no single one, `Callable` anything that can be called, `Any` is
not looked at, `Annotated[int, AT_LEAST_1]` has a limit besides. A number may be traced: its limits
are not looked at then.
"""

import collections.abc
import dataclasses
import functools
import inspect
import numbers
import reprlib
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import jax
import numpy as np

from jaxtl.blame import place_of

F = TypeVar("F", bound=Callable)


class Limit(NamedTuple):
    """What must hold of a value besides its type.

    Attributes:
        words: with `{}` in place of the words of the type.
        holds: says whether it does.
    """

    words: str
    holds: Callable[[Any], bool]


AT_LEAST_0 = Limit("{} of at least 0", lambda value: value >= 0)
AT_LEAST_1 = Limit("{} of at least 1", lambda value: value >= 1)
NOT_NEGATIVE = Limit("{} of at least 0, and finite", lambda value: 0 <= value < float("inf"))
POSITIVE = Limit("{} above 0, and finite", lambda value: 0 < value < float("inf"))
BELOW_1 = Limit("{} in [0, 1)", lambda value: 0 <= value < 1)
SHARE = Limit("{} in [0, 1]", lambda value: 0 <= value <= 1)
FINITE = Limit("{} that is finite", lambda value: abs(value) < float("inf"))
INT32 = Limit("{} below 2**31", lambda value: abs(value) < 2**31)
SIZE = Limit("{} from 1 to 2**31 - 1", lambda value: 1 <= value < 2**31)
PRINTABLE = Limit("{} that can be printed", lambda value: value != "" and value.isprintable())
PART = Limit(
    "{} that can be printed, without a slash",
    lambda value: value != "" and value.isprintable() and "/" not in value,
)
PREPARES = Limit("a function of 4 arguments", lambda value: _positional(value, 4))
FILE_NAME = Limit(
    "{} that can name a folder: printable, at most 255 bytes",
    lambda value: value.isprintable() and len(value.encode()) <= 255,
)
WHOLE = Limit(
    "a list or tuple of patterns, as in ('heads/.*',)",
    lambda value: len(value) < 3 or any(len(part) > 1 for part in value),
)

Name = Annotated[str, PART]
Patterns = Annotated[Sequence[str], WHOLE]
Size = Annotated[int, SIZE]
Rate = Annotated[float, BELOW_1]
Finite = Annotated[float, FINITE]

EXAMPLES = {  # how the values are written that a class alone does not tell
    "Data": "a Dataset",
    "Domain": "a domain such as labelled(dataset, 'head')",
    "Evaluation": "an evaluation such as classification(dataset, 'head')",
    "GradientTransformation": "an Optax transformation such as optax.adam(1e-3)",
    "Head": "a head such as classes(5)",
    "Method": "a method such as transfer.full(optax.adam(1e-3))",
    "Metric": "maximize('evaluation', 'metric') or minimize(...)",
    "Model": "a model such as models.mlp(heads)",
    "Module": "a module such as models.mlp_head((64,), 2)",
    "Weights": "published weights such as pretrained.resnet(file)",
}
SIMPLE = {
    int: ("a whole number", numbers.Integral),
    float: ("a number", numbers.Real),
    str: ("text", str),
    bool: ("True or False", bool | np.bool_),
}


def checked(target: F) -> F:
    """A dataclass, or a function, that refuses what its annotations exclude.

    Raises:
        ValueError: from the constructor or the call; lists all fields or arguments that do not fit.
    """
    if isinstance(target, type):
        target.__post_init__ = _check_fields
        return target
    signature = inspect.signature(target)

    @functools.wraps(target)
    def call(*args, **kwargs):
        hints, problems = _hints(target), []
        arguments = signature.bind(*args, **kwargs).arguments
        owner = f" of {arguments['self'].name}" if "self" in arguments else ""
        for name, value in arguments.items():
            if signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
                hint = Sequence[hints[name]] if name in hints else Any
            else:
                hint = hints.get(name, Any)
            problems += wrong(name, value, hint)
        if problems:
            place = f"{target.__name__}{owner}"
            raise ValueError("\n".join(f"{place}: {problem}" for problem in problems))
        return target(*args, **kwargs)

    return call


def _check_fields(value: Any) -> None:
    name = getattr(value, "name", None)
    place = type(value).__name__.lower()
    place += f" {reprlib.repr(name)}" if isinstance(name, str) else ""
    hints = _hints(type(value))
    problems = [
        problem
        for field in dataclasses.fields(value)
        for problem in wrong(field.name, getattr(value, field.name), hints[field.name])
    ]
    if problems:
        raise ValueError("\n".join(f"{place}: {problem}" for problem in problems))


@functools.cache
def _hints(target: Any) -> dict[str, Any]:
    return typing.get_type_hints(target, include_extras=True)


def wrong(place: str, value: Any, hint: Any) -> Iterator[str]:
    """`place must be ..., got ...` for each part of a value that does not fit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        problems = list(wrong(place, value, arguments[0]))
        limit = arguments[1]
        if problems:
            alone = problems == [_must(place, value, arguments[0])]
            outside = alone and "{}" not in limit.words
        else:
            outside = not _traced(value) and not limit.holds(value)
        yield from [_must(place, value, hint)] if outside else problems
    elif origin in (typing.Union, types.UnionType):
        ways = [list(wrong(place, value, argument)) for argument in arguments]
        if all(ways):
            given = [w for w, a in zip(ways, arguments, strict=True) if a is not type(None)]
            yield from given[0] if len(given) == 1 else [_must(place, value, hint)]
    elif origin is tuple and arguments[-1] is not Ellipsis:
        if not isinstance(value, tuple | list) or len(value) != len(arguments):
            yield _must(place, value, hint)
            return
        for i, (part, argument) in enumerate(zip(value, arguments, strict=True)):
            yield from wrong(f"{place}[{i}]", part, argument)
    elif origin is collections.abc.Mapping:
        if not isinstance(value, Mapping):
            yield _must(place, value, hint)
            return
        for name, part in value.items():
            problems = list(wrong(f"a name in {place}", name, arguments[0]))
            yield from problems or wrong(f"{place}[{name!r}]", part, arguments[1])
    elif origin in (collections.abc.Sequence, tuple):
        if not _several(value, arguments[0]):
            yield _must(place, value, hint)
            return
        for i, part in enumerate(value):
            yield from wrong(f"{place}[{i}]", part, arguments[0])
    elif not _fits(value, hint):
        yield _must(place, value, hint)
    elif getattr(hint, "__module__", "").startswith("jaxtl") and hasattr(hint, "_fields"):
        for field, inner in _hints(hint).items():
            yield from wrong(f"{place}.{field}", getattr(value, field), inner)


def _several(value: Any, part: Any) -> bool:
    """Whether it holds parts in an order; that of texts does not matter."""
    if isinstance(value, str | bytes | Mapping):
        return False
    ordered = isinstance(value, Sequence) or (isinstance(value, np.ndarray) and value.ndim == 1)
    return ordered or (part is str and isinstance(value, Collection) and np.ndim(value) == 0)


def _fits(value: Any, hint: Any) -> bool:
    if hint in (int, float):
        number = isinstance(value, SIMPLE[hint][1]) or (hint is float and _scalar(value))
        return _traced(value) or (number and not isinstance(value, bool))
    if hint in SIMPLE:
        return isinstance(value, SIMPLE[hint][1])
    if typing.get_origin(hint) is Literal:
        return isinstance(value, str) and value in typing.get_args(hint)
    if hint is Callable or typing.get_origin(hint) is collections.abc.Callable:
        return callable(value) and _takes(value, typing.get_args(hint))
    if hint is Any or not isinstance(hint, type):
        return True
    if getattr(hint, "_is_protocol", False):
        parts = [name for name, part in vars(hint).items() if inspect.isfunction(part)]
        return all(hasattr(type(value), name) for name in parts if not name.startswith("_"))
    return isinstance(value, hint)


def _takes(function: Callable, arguments: tuple) -> bool:
    """Whether a function can be called with as many values as its annotation has."""
    if not arguments or arguments[0] is Ellipsis:
        return True
    try:
        inspect.signature(function).bind(*arguments[0])
    except TypeError:
        return False
    except ValueError:  # of some built-in functions nothing is known
        return True
    return True


def _positional(function: Callable, count: int) -> bool:
    """Whether a function can be called with so many values, and with others by name."""
    kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    least = sum(kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in kinds)
    return least == count or inspect.Parameter.VAR_POSITIONAL in kinds


def _traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)


def _scalar(value: Any) -> bool:
    """Whether it is an array of one real number and no axes."""
    return (
        isinstance(value, np.ndarray | jax.Array)
        and value.ndim == 0
        and np.issubdtype(value.dtype, np.number)
        and not np.issubdtype(value.dtype, np.complexfloating)
    )


def is_array(value: Any) -> bool:
    """Whether JAX takes it for an array: one of JAX's or NumPy's, or a number."""
    return isinstance(value, jax.Array | np.ndarray | np.generic | int | float | complex)


def _must(place: str, value: Any, hint: Any) -> str:
    return f"{place} must be {words(hint)}, got {describe(value)}"


def words(hint: Any) -> str:
    """What fits an annotation, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return arguments[1].words.format(words(arguments[0]))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(words(argument) for argument in arguments)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"({', '.join(map(words, arguments))})"
    if origin is collections.abc.Mapping:
        return f"{{name: {words(arguments[1])}}}"
    if origin in (collections.abc.Sequence, tuple):
        return f"a list or tuple, each part {words(arguments[0])}"
    if hint in SIMPLE:
        return SIMPLE[hint][0]
    if origin is collections.abc.Callable and arguments[0] is not Ellipsis:
        return f"a function of {len(arguments[0])} argument{'s' * (len(arguments[0]) != 1)}"
    if isinstance(hint, type) and hint.__module__.startswith("flax"):
        return "a linen module"
    if isinstance(hint, type) and hint not in (type(None), Callable):
        return EXAMPLES.get(hint.__name__, f"a {hint.__name__}")
    return "None" if hint is type(None) else "a function"


def describe(value: Any) -> str:
    """What was given, in few words."""
    kind = type(value).__name__
    if isinstance(value, str | bytes | numbers.Number) or value is None:
        return reprlib.repr(value) if isinstance(value, str | bytes) else repr(value)[:60]
    if isinstance(value, np.ndarray | jax.Array):
        return f"an array {value.dtype}{list(value.shape)}"
    if isinstance(value, type):
        return f"the class {value.__name__}; did you mean to call it?"
    if inspect.isroutine(value):
        name = getattr(value, "__name__", kind)
        place = f" ({written})" if (written := place_of(value)) else ""
        return f"the function {name}{place}"
    if kind == "Splits":
        return "Splits; take one of them, such as .train"
    simple = isinstance(value, tuple | list) and all(
        isinstance(v, str | int | float) for v in value
    )
    if (simple or value == {}) and len(text := repr(value)) <= 60:
        return text
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"
