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
    "Combine": "a rule such as multitask.pcgrad()",
    "Data": "a Dataset",
    "Domain": "a domain such as labelled(dataset, 'head')",
    "Evaluation": "an evaluation such as classification(dataset, 'head')",
    "GradientTransformation": "an Optax transformation such as optax.adam(1e-3)",
    "Head": "a head such as classes(5)",
    "Learner": "a learner such as fewshot.prototypical()",
    "Method": "a method such as transfer.full(optax.adam(1e-3))",
    "Metric": "maximize('evaluation', 'metric') or minimize(...)",
    "Model": "a model such as models.mlp(heads)",
    "Module": "a module such as models.mlp_head((64,), 2)",
    "Scheme": "names such as those of pretrained.RESNET",
    "Weigh": "a rule such as multitask.uncertainty_weighting(optax.adam(1e-3))",
    "Weights": "published weights such as pretrained.weights(file, pretrained.RESNET)",
}


def _is_number(value: Any, kind: type) -> bool:
    """Whether it is a real number of this kind and no truth value; any that is traced is."""
    if isinstance(value, jax.core.Tracer):
        return True
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    """Whether it is a real number, or an array of one without axes."""
    if isinstance(value, np.ndarray | jax.Array) and not isinstance(value, jax.core.Tracer):
        return value.ndim == 0 and value.dtype.kind in "iuf"
    return _is_number(value, numbers.Real)


SIMPLE = {  # {type: (what it is called, whether a value is one)}
    int: ("a whole number", lambda value: _is_number(value, numbers.Integral)),
    float: ("a number", _is_real),
    str: ("text", lambda value: isinstance(value, str)),
    bool: ("True or False", lambda value: isinstance(value, bool | np.bool_)),
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
        arguments = signature.bind(*args, **kwargs).arguments
        owner = f" of {arguments['self'].name}" if "self" in arguments else ""
        _check(f"{target.__name__}{owner}", arguments, _hints(target))
        return target(*args, **kwargs)

    return call


def _check_fields(value: Any) -> None:
    name = getattr(value, "name", None)
    place = type(value).__name__.lower()
    place += f" {reprlib.repr(name)}" if isinstance(name, str) else ""
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    _check(place, fields, _hints(type(value)))


def _check(place: str, values: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """Raises ValueError that lists all of the values that do not fit their annotations."""
    problems = []
    for name, value in values.items():
        problems += wrong(name, value, hints.get(name, Any))
    if problems:
        raise ValueError("\n".join(f"{place}: {problem}" for problem in problems))


@functools.cache
def _hints(target: Any) -> dict[str, Any]:
    """{name: annotation} of fields or arguments; of `*names` that of the tuple."""
    hints = typing.get_type_hints(target, include_extras=True)
    if not isinstance(target, type):
        for name, parameter in inspect.signature(target).parameters.items():
            if name in hints and parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                hints[name] = Sequence[hints[name]]
    return hints


def wrong(place: str, value: Any, hint: Any) -> Iterator[str]:
    """`place must be ..., got ...` for each part of a value that does not fit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        kind, limit = arguments
        problems = list(wrong(place, value, kind))
        # Of a value of another type, a limit that only adds to the type's words says nothing.
        if problems and ("{}" in limit.words or problems != [_must(place, value, kind)]):
            yield from problems
        elif problems or not (isinstance(value, jax.core.Tracer) or limit.holds(value)):
            yield _must(place, value, hint)
    elif origin in (typing.Union, types.UnionType):
        ways = {argument: list(wrong(place, value, argument)) for argument in arguments}
        if all(ways.values()):
            ways.pop(type(None), None)
            yield from [_must(place, value, hint)] if len(ways) > 1 else next(iter(ways.values()))
    elif (parts := _parts(place, value, hint)) is None:
        yield _must(place, value, hint)
    else:
        for part in parts:
            yield from wrong(*part)


def _parts(place: str, value: Any, hint: Any) -> list[tuple[str, Any, Any]] | None:
    """(place, value, annotation) of what a value holds; None if it is of another kind itself."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is collections.abc.Mapping:
        if not isinstance(value, Mapping):
            return None
        names = [(f"a name in {place}", name, arguments[0]) for name in value]
        return names + [(f"{place}[{name!r}]", part, arguments[1]) for name, part in value.items()]
    if origin in (collections.abc.Sequence, tuple):
        fixed = origin is tuple and arguments[-1] is not Ellipsis
        if fixed:
            fits = isinstance(value, tuple | list) and len(value) == len(arguments)
        else:
            fits = _several(value, arguments[0])
        if not fits:
            return None
        hints = arguments if fixed else arguments[:1] * len(value)
        return [(f"{place}[{i}]", *pair) for i, pair in enumerate(zip(value, hints, strict=True))]
    if not _fits(value, hint):
        return None
    if getattr(hint, "__module__", "").startswith("jaxtl") and hasattr(hint, "_fields"):
        return [(f"{place}.{name}", getattr(value, name), h) for name, h in _hints(hint).items()]
    return []


def _several(value: Any, part: Any) -> bool:
    """Whether it holds parts in an order; that of texts does not matter."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    kinds = Collection if part is str else Sequence
    return isinstance(value, kinds) and not isinstance(value, str | bytes | Mapping)


def _fits(value: Any, hint: Any) -> bool:
    if hint in SIMPLE:
        return SIMPLE[hint][1](value)
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
        pass
    return True


def _positional(function: Callable, count: int) -> bool:
    """Whether a function can be called with so many values, and with others by name."""
    kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    least = sum(kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in kinds)
    return least == count or inspect.Parameter.VAR_POSITIONAL in kinds


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
