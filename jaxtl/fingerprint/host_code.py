"""What a Python function computes: its bytecode and all that it reads, but for names and lines."""

import dis
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import itertools
import platform
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtl.fingerprint.graph import Graph, Part, text

FLAGS = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)
SAYS_NOTHING = {"NOP", "RESUME", "CACHE", "EXTENDED_ARG", "STORE_ANNOTATION"}
ALWAYS_FOLLOWED = {"jaxtl", "__main__", "__mp_main__"}
NAMES_AND_LINES = {"__qualname__", "__doc__", "__firstlineno__", "__static_attributes__"}


class Bytecode(NamedTuple):
    """A code object that reads the globals of a module."""

    code: types.CodeType
    namespace: Mapping[str, Any]


class Attributes(NamedTuple):
    """The attributes of a module that some code can read."""

    module: types.ModuleType
    names: Sequence[str]


class Load(NamedTuple):
    """An instruction that reads a constant, a global or a module."""

    kind: str
    value: Any


@functools.cache
def library_of(module: str, file: str | None) -> str | None:
    """`numpy 2.4.6` for what an installed library defines, None for jaxtl and the user's own."""
    top = module.partition(".")[0]
    if top in ALWAYS_FOLLOWED:
        return None
    folders = Path(file).parts if file else ()
    paths = sysconfig.get_paths()
    if {"site-packages", "dist-packages"} & set(folders) or (
        file and file.startswith((paths["purelib"], paths["platlib"]))
    ):
        return f"{top} {_version(top)}"
    standard = file.startswith((paths["stdlib"], paths["platstdlib"], "<frozen")) if file else None
    if standard or (not file and top in sys.stdlib_module_names):
        return f"python {platform.python_version()}"
    return None


@functools.cache
def _version(top: str) -> str:
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(top), "__version__", "of unknown version"))


def library_of_module(name: str) -> str | None:
    """As `library_of`, for what says in which module it was defined."""
    return library_of(name, getattr(sys.modules.get(name), "__file__", None))


def describe_function(graph: Graph, function: types.FunctionType, where: str) -> list[Part]:
    """What a function does; where a library defines it, the library's version stands for that."""
    code, name = function.__code__, function.__name__
    module = str(function.__globals__.get("__name__"))
    generated = code.co_filename.startswith("<") and not code.co_filename.startswith("<frozen")
    library = library_of_module(module) if generated else library_of(module, code.co_filename)
    local = "<locals>" in code.co_qualname
    parts: list[Part] = []
    if library:
        parts.append(b"library function" + text(library, module, code.co_qualname))
        if not local:
            return parts
    else:
        bytecode = Bytecode(code, function.__globals__)
        key = (id(code), id(function.__globals__))
        parts += [b"function", graph.part(bytecode, name, key)]
        parts += attributes(graph, vars(function), f"attribute {{}} of {name}")
    for cell in function.__closure__ or ():
        try:
            parts += [b"cell", graph.part(cell.cell_contents, f"closure of {name}")]
        except ValueError:
            parts.append(b"empty cell")
    defaults = f"a default argument of {name}"
    parts += [graph.part(value, defaults) for value in function.__defaults__ or ()]
    return parts + attributes(graph, function.__kwdefaults__ or {}, defaults)


def describe_bytecode(graph: Graph, bytecode: Bytecode, where: str) -> list[Part]:
    """The instructions of a function, with the values of the constants and globals they read."""
    code, namespace = bytecode
    arguments = code.co_argcount + code.co_kwonlyargcount
    parts: list[Part] = [
        text("code", *code.co_varnames[:arguments]),
        b"%d %d" % (code.co_flags & FLAGS, code.co_posonlyargcount),
        b"%d" % code.co_argcount,
        code.co_exceptiontable,
    ]
    names = _all_names(code)
    for item in _instructions(code):
        if isinstance(item, bytes):
            parts.append(item)
        elif item.kind == "constant":
            parts.append(_constant(graph, item.value, namespace, where))
        elif item.kind == "import":
            parts.append(_imported(graph, item.value, names, namespace, where))
        else:
            parts += _global(graph, item.value, names, namespace, where)
    return parts


def _constant(graph: Graph, value: Any, namespace: Mapping[str, Any], where: str) -> Part:
    if isinstance(value, types.CodeType):
        return graph.part(Bytecode(value, namespace), where, (id(value), id(namespace)))
    return graph.part(value, where)


def _global(
    graph: Graph, name: str, names: Sequence[str], namespace: Mapping[str, Any], where: str
) -> list[Part]:
    if name not in namespace:
        return [b"builtin" + text(name)]
    value, place = namespace[name], f"global {name}, which {where} reads"
    if _is_remembered(str(namespace.get("__name__")), name, value):
        return [b"remembered" + text(name)]
    if isinstance(value, types.ModuleType):
        return [_module(graph, value, names, place)]
    return [b"global", graph.part(value, place)]


def _is_remembered(module: str, name: str, value: Any) -> bool:
    """Whether a global is a cache or a counter of jaxtl, which are private and in lower case."""
    private = name.startswith("_") and name.islower() and module.partition(".")[0] == "jaxtl"
    return private and not callable(value) and not isinstance(value, types.ModuleType)


def _imported(
    graph: Graph, wanted: tuple, names: Sequence[str], namespace: Mapping[str, Any], where: str
) -> Part:
    """What an import inside a function brings; libraries are not imported for this."""
    level, name = wanted
    try:
        if level:
            package = namespace.get("__package__") or ""
            name = importlib.util.resolve_name("." * level + name, package)
        top = name.partition(".")[0]
        spec = importlib.util.find_spec(top)
        if spec is None:
            return b"no module" + text(name)
        origin = spec.origin if spec.has_location else None
        library = library_of(top, origin) if origin or top in sys.stdlib_module_names else None
        if library:
            return b"library" + text(library, name)
        return _module(graph, importlib.import_module(name), names, f"module {name}")
    except Exception as error:  # a module's own code runs when it is imported
        graph.opaque.add(f"module {name}, which {where} imports ({type(error).__name__})")
        return b"opaque module"


def _module(graph: Graph, module: types.ModuleType, names: Sequence[str], where: str) -> Part:
    name = str(module.__name__)
    if library := library_of_module(name):
        return b"library" + text(library, name)
    readable = tuple(n for n in names if n in vars(module))
    return graph.part(Attributes(module, readable), where, (id(module), readable))


def describe_module(graph: Graph, view: Attributes, where: str) -> list[Part]:
    """Those attributes of a module of one's own that the names in some code can mean."""
    parts: list[Part] = [b"module"]
    for name in view.names:
        value = vars(view.module)[name]
        if _is_remembered(view.module.__name__, name, value):
            continue
        if isinstance(value, types.ModuleType):
            inner = [n for n in view.names if n != name]
            part = _module(graph, value, inner, f"module {value.__name__}")
        else:
            part = graph.part(value, f"{name} of module {view.module.__name__}")
        parts += [text(name), part]
    return parts


def describe_class(graph: Graph, cls: type, where: str) -> list[Part]:
    """What a class can do; where a library defines it, the library's version stands for that."""
    if library := library_of_module(cls.__module__):
        return [b"library class" + text(library, cls.__module__, cls.__qualname__)]
    # Linen names submodules, and so parameters, after their class.
    parts: list[Part] = [b"class" + text(cls.__name__), graph.part(type(cls), where)]
    parts += [graph.part(base, where) for base in cls.__bases__]
    return parts + attributes(graph, vars(cls), f"{{}} of class {cls.__name__}")


def attributes(graph: Graph, values: Mapping[str, Any], where: str) -> list[Part]:
    """Named values in the order of their names, without what only describes their owner."""
    parts: list[Part] = []
    for name in sorted(name for name in values if isinstance(name, str)):
        value = values[name]
        if not _describes_owner(name, value):
            parts += [text(name), graph.part(value, where.format(name))]
    return parts


def _describes_owner(name: str, value: Any) -> bool:
    """`__doc__`, `__module__`, `__annotations__`, but not `__call__`."""
    if name.startswith("__") and name.endswith("__"):
        return name == "__wrapped__" or not (callable(value) or isinstance(value, classmethod))
    return name == "_abc_impl"


@functools.cache
def _instructions(code: types.CodeType) -> tuple[bytes | Load, ...]:
    """What the instructions of a code object do; constants and globals by value, not by index."""
    steps = [step for step in dis.get_instructions(code) if step.opname not in SAYS_NOTHING]
    result: list[bytes | Load] = []
    for i, step in enumerate(steps):
        following = steps[i + 1] if i + 1 < len(steps) else step
        result.append(step.opname.encode())
        if step.opcode in dis.hasconst:
            # A class body stores its name and docstring like any attribute.
            about = following.opname == "STORE_NAME" and following.argval in NAMES_AND_LINES
            result.append(Load("constant", None if about else step.argval))
        elif step.opname == "IMPORT_NAME":
            level = steps[i - 2].argval if i > 1 else 0
            result.append(Load("import", (level if isinstance(level, int) else 0, step.argval)))
        elif step.opname == "LOAD_GLOBAL":
            result += [b"%d" % (step.arg & 1), Load("global", step.argval)]  # 1: it is called
        elif step.opname in ("LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            result += [text(step.argval), Load("global", step.argval)]
        elif step.opcode in dis.hasname:
            result.append(text(str(step.argval)))
        elif step.arg is not None:
            result.append(b"%d" % step.arg)
    return tuple(_joined(result))


def _joined(items: Sequence[bytes | Load]) -> Iterator[bytes | Load]:
    """The same with bytes that follow each other in one piece."""
    for together, group in itertools.groupby(items, lambda item: isinstance(item, bytes)):
        members = list(group)
        yield from [b"".join(b"%d:%b" % (len(m), m) for m in members)] if together else members


@functools.cache
def _all_names(code: types.CodeType) -> tuple[str, ...]:
    """All names of globals and attributes in a code object and those inside it, sorted."""
    inner = (_all_names(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return tuple(sorted(set(code.co_names).union(*inner)))
