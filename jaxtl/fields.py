"""Fields of a frozen dataclass set from text, and the points of a sweep over them."""

import ast
import contextlib
import dataclasses
import enum
import inspect
import io
import itertools
import json
import math
import textwrap
import tokenize
import typing
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtl.files import user_path
from jaxtl.paths import unknown


def parse(default: Any, group: str, args: Sequence[str], others: Sequence[str] = ()) -> Any:
    """A frozen dataclass with fields set by `--<group>.<field>=<value>`, each once.

    Args:
        default: instance with the defaults; nested dataclasses are addressed by dots.
        group: empty for flags, `--<field>=<value>`.
        others: flags that are no fields, but may have been meant.

    Raises:
        ValueError: unknown fields (with the closest), values of the wrong type, or values that the
            dataclass refuses; all of them.
    """
    prefix = f"--{group}." if group else "--"
    names = list(field_names(default, prefix))
    counts = Counter(arg.partition("=")[0] for arg in args)
    values, problems = {}, []
    for arg in args:
        flag, equals, text = arg.partition("=")
        name = flag.removeprefix(prefix)
        if flag not in names:
            room = flag[: flag.find(".") + 1]  # `--config.`, nothing for a flag
            alike = [n for n in names if n.startswith(room) and ("." in n) == bool(room)]
            kind = "field" if room else "flag"
            problems.append(unknown(kind, flag, alike or names, [*names, *others]))
        elif not equals and type_of(default, name) is not bool:
            problems.append(f"{arg}: write {arg}=VALUE")
        elif counts[flag] > 1:
            problems.append(f"{flag} stands {counts[flag]} times; give it once")
        else:
            try:
                values[name] = parse_value(default, name, text if equals else "true")
            except ValueError as error:
                problems.append(f"{arg}: {error}")
    if problems:
        raise ValueError("\n".join(dict.fromkeys(problems)))
    return replace_fields(default, values)


def field_names(config: Any, prefix: str) -> Iterator[str]:
    """Dotted names, after the prefix, of the fields that hold no further dataclass."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from field_names(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def type_of(config: Any, name: str) -> Any:
    """The annotation of the field with this dotted name."""
    holder, _, field = name.rpartition(".")
    return typing.get_type_hints(type(get_field(config, holder)))[field]


def type_name(kind: Any) -> str:
    """`int`, `tuple[int, ...]`, `sgd or adam`: what a text for a field of this type is."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return " or ".join(kind.__members__)
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    plain = isinstance(kind, type) and not typing.get_args(kind)
    return kind.__name__ if plain else str(kind).replace("typing.", "")


def text_of(value: Any) -> str:
    """What to write on the command line for a value."""
    if isinstance(value, enum.Enum):
        return value.name
    return str(value).lower() if isinstance(value, bool) else str(value)


def meanings(kind: type) -> dict[str, str]:
    """{field: what is written of it} of a dataclass, as one line each.

    That is the string below a field, its line under `Attributes:` in the docstring of the class, or
    else the comment beside it or those right above it.
    """
    import docstring_parser

    texts: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        with contextlib.suppress(OSError, TypeError, SyntaxError):  # it has no file, say
            texts |= _comments(inspect.getsource(each))
        documented = docstring_parser.parse_from_object(each).params
        texts |= {param.arg_name: param.description for param in documented if param.description}
    return {name: " ".join(text.split()) for name, text in texts.items()}


def _comments(source: str) -> dict[str, str]:
    """{field: the comments beside it, or else those above it} of the source of a class."""
    source = textwrap.dedent(source)
    beside, alone = {}, {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("#").strip()
            (beside if token.line[: token.start[1]].strip() else alone)[token.start[0]] = text
    texts = {}
    for node in ast.parse(source).body[0].body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            last = first = node.lineno
            while first - 1 in alone:
                first -= 1
            lines = range(node.lineno, node.end_lineno + 1)
            texts[node.target.id] = " ".join(beside[line] for line in lines if line in beside) or (
                " ".join(alone[line] for line in range(first, last))
            )
    return {name: text for name, text in texts.items() if text}


def parse_value(config: Any, name: str, text: str) -> Any:
    """The value that a text stands for, by the type of the field with this dotted name.

    Raises:
        ValueError: it is of another type.
    """
    import tyro

    kind = type_of(config, name)
    text = text.capitalize() if kind is bool else text
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            parsed = tyro.cli(
                dataclasses.make_dataclass("Root", [("value", kind)]),
                args=[f"--value={text}"],
                console_outputs=False,
                config=(
                    tyro.conf.AvoidSubcommands,
                    tyro.conf.FlagConversionOff,
                    tyro.conf.UsePythonSyntaxForLiteralCollections,
                ),
            )
    except SystemExit:
        value = get_field(config, name)
        shown = value.name if isinstance(value, enum.Enum) else repr(value)
        raise ValueError(f"expected {type_name(kind)}, as in {shown}") from None
    if parsed.value != parsed.value:
        raise ValueError("nan is no value")
    return Path(user_path(parsed.value)) if isinstance(parsed.value, Path) else parsed.value


def replace_fields(config: Any, values: Mapping[str, Any]) -> Any:
    """A dataclass with the fields of these dotted names replaced, all at once."""
    inner: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        first, _, rest = name.partition(".")
        inner.setdefault(first, {})[rest] = value
    changes = {
        first: below[""] if "" in below else replace_fields(getattr(config, first), below)
        for first, below in inner.items()
    }
    return dataclasses.replace(config, **changes)


def json_values(config: Any) -> dict[str, Any]:
    """The fields of a dataclass as they come back from a JSON file."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=text_of))


def sweep_points(
    config: Any, given: Sequence[str], default: Mapping[str, Sequence[Any]]
) -> list[tuple[dict[str, Any], Any]]:
    """({field: value}, config) of each point of a sweep; several fields are multiplied.

    Args:
        config: what the other fields are taken from.
        given: FIELD=V1,V2,... of the command line; a single empty string asks for no sweep.
        default: {field: values} of the experiment file, used where nothing is given.

    Raises:
        ValueError: an unknown field, a value of the wrong type, one that is no finite number, or a
            field or a value that stands twice.
    """
    if list(given) == [""]:
        return []
    axes = {name: list(map(str, values)) for name, values in ({} if given else default).items()}
    for name, equals, values in (text.partition("=") for text in given):
        if not equals:
            raise ValueError(f"--sweep={name}: expected FIELD=V1,V2,...")
        if name in axes:
            raise ValueError(f"--sweep={name}=... stands twice; name all its values at once")
        axes[name] = split_values(values)
    points: list[tuple[dict[str, Any], Any]] = []
    for texts in itertools.product(*axes.values()) if axes else ():
        args = [f"--config.{name}={text}" for name, text in zip(axes, texts, strict=True)]
        try:
            swept = parse(config, "config", args)
        except ValueError as error:
            raise ValueError(f"{'--sweep' if given else 'SWEEP'}: {error}") from error
        values = {name: get_field(swept, name) for name in axes}
        for name, value in values.items():
            if value in (math.inf, -math.inf):
                raise ValueError(f"--sweep={name}: {value} is no point of a sweep")
        if any(values == others for others, _ in points):
            text = ", ".join(f"{name}={value}" for name, value in values.items())
            raise ValueError(f"--sweep: the point {text} stands twice")
        points.append((values, swept))
    return points


def unset_fields(
    sweep: Mapping[str, Sequence[Any]], chosen: Collection[str]
) -> dict[str, Sequence[Any]]:
    """The sweep that an experiment asks for, without the fields that somebody gave a value."""
    return {field: values for field, values in sweep.items() if field not in chosen}


def split_values(text: str) -> list[str]:
    """The values between the commas that stand in no brackets: `(4,),(8, 8)` are two.

    Raises:
        ValueError: brackets that do not fit together.
    """
    values, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            values.append("")
        else:
            values[-1] += letter
        if depth < 0:
            break
    if depth:
        raise ValueError(f"--sweep: the brackets of {text} do not fit together")
    return values


def get_field(config: Any, name: str) -> Any:
    for part in filter(None, name.split(".")):
        config = getattr(config, part)
    return config


def from_json(default: Any, values: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """The inverse of `json_values`.

    Args:
        default: instance that has what `values` does not name.

    Returns:
        (the dataclass, dotted names in `values` that it has no field for).

    Raises:
        ValueError: a value that its field does not take.
    """
    from flax import traverse_util  # imports JAX, which a mistyped flag need not wait for

    names = set(field_names(default, ""))

    def dotted(config: Mapping[str, Any]) -> dict[str, Any]:
        return traverse_util.flatten_dict(
            config, is_leaf=lambda path, _: ".".join(path) in names, sep="."
        )

    written, defaults = dotted(values), dotted(json_values(default))
    changed = {
        name: _from_json(default, name, value)
        for name, value in written.items()
        if name in names and value != defaults[name]
    }
    return replace_fields(default, changed), sorted(written.keys() - names)


def _from_json(default: Any, name: str, value: Any) -> Any:
    texts = [value] if isinstance(value, str) else [repr(_tuples(value)), repr(value)]
    for text in texts:
        with contextlib.suppress(ValueError):
            return parse_value(default, name, text)
    kind = type_of(default, name)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):  # one of numbers or texts
        with contextlib.suppress(ValueError):
            return kind(value)
    raise ValueError(f"{name}: {value!r} is no value like {get_field(default, name)!r}")


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
