"""The pickles of `torch.save`, read opcode by opcode: nothing is called, so nothing can run.

Memory and time are linear in the bytes that are there, and both are bounded: declared lengths
allocate nothing, nothing is hashed but short names and small numbers, and nothing is copied.
"""

import pickletools
from collections.abc import Iterable
from typing import Any, BinaryIO, NamedTuple

from jaxtl.pretrained.archives import Unreadable, shorten

TYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
# A checkpoint of 1,000 tensors with an optimizer has some 200,000 opcodes.
_STEPS = 2_000_000
_KEY_LENGTH = 4096
_INTEGER_BITS = 128
_AXES = 32

_DICTIONARY, _SIZE = "collections.OrderedDict", "torch.Size"
_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_STORAGES = {f"torch.{kind}": kind for kind in TYPES}
# What stands beside the tensors in the checkpoints of PyTorch Lightning and its like: hyper-
# parameters, paths, times, random states. It is not made, nor are the values in it.
_SET_ASIDE = {
    *("argparse.Namespace", "collections.defaultdict", "copyreg._reconstructor", "_codecs.encode"),
    *("builtins.set", "builtins.object", "builtins.dict", "builtins.list", "builtins.complex"),
    *("__builtin__.set", "__builtin__.object", "copy_reg._reconstructor", "typing.Any"),
    *("builtins.int", "builtins.float", "builtins.str", "builtins.bool"),
    *("datetime.datetime", "datetime.timedelta", "torch.device", "torch.Generator"),
    *(f"pathlib.{kind}Path" for kind in ("Posix", "Windows", "PurePosix", "PureWindows")),
    *(f"pathlib._local.{kind}Path" for kind in ("Posix", "Windows")),
    *("numpy.dtype", "numpy.ndarray"),
    *(
        f"numpy.{core}.multiarray.{name}"
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ),
    *(
        f"{package}.AttributeDict"
        for package in (
            "pytorch_lightning.utilities.parsing",
            "lightning.pytorch.utilities.parsing",
            "lightning_fabric.utilities.data",
            "lightning.fabric.utilities.data",
        )
    ),
    *(
        f"{package}.callbacks.{module}"
        for package in ("pytorch_lightning", "lightning.pytorch")
        for module in ("model_checkpoint.ModelCheckpoint", "early_stopping.EarlyStopping")
    ),
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
    *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata"),
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Integer", "Float", "String", "Boolean")),
}
_NAMES = {_DICTIONARY, _SIZE, *_TENSORS, *_PARAMETERS, *_STORAGES}

_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NEW = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GETS = ("GET", "BINGET", "LONG_BINGET")


class Storage(NamedTuple):
    """Numbers of the file, from `start` on; `kind` is a name in `TYPES`."""

    key: str
    kind: str
    start: int


class Tensor(NamedTuple):
    """A view of a storage: offset and strides count numbers."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Name(str):
    """A function or class that a pickle names."""


class _Aside:
    """In the place of a value that is not made; whatever is put into it is gone."""


_ASIDE = _Aside()


class TorchPickle:
    """Reads pickles of tensors, dictionaries and plain values, and leaves aside what is known to
    stand beside them; anything else is an error.

    Attributes:
        storages: {key: (kind, number of its numbers)} of those met.
    """

    def __init__(self) -> None:
        self.storages: dict[str, tuple[str, int]] = {}
        self._steps = 0

    def load(self, file: BinaryIO) -> Any:
        """The next value: tensors, dictionaries, lists, tuples and plain values.

        Items of dictionaries whose keys are neither text nor integers are left out, and so are the
        attributes of dictionaries.

        Args:
            file: stands behind the pickle afterwards; its `read` returns what is there, whatever
                the length asked for.

        Raises:
            Unreadable: something else is in it, or too much.
            Exception: of any kind, as broken bytes can mean anything.
        """
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}

        def pop(count: int) -> list[Any]:
            if count > len(stack):
                raise Unreadable("it takes what is not there")
            items = stack[len(stack) - count :]
            del stack[len(stack) - count :]
            return items

        def since_mark() -> list[Any]:
            return pop(len(stack) - marks.pop())

        for opcode, value, _ in pickletools.genops(file):
            name = opcode.name
            self._work(1)
            if name in _VALUES:
                stack.append(_plain(value))
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name in _NEW:
                stack.append(_NEW[name]())
            elif name in _PUTS:
                memo[len(memo) if value is None else value] = stack[-1]
            elif name in _GETS:
                stack.append(memo[value])
            elif name == "MARK":
                marks.append(len(stack))
            elif name in _TUPLES:
                stack.append(tuple(pop(_TUPLES[name])))
            elif name in ("TUPLE", "FROZENSET"):
                stack.append(tuple(since_mark()))
            elif name == "LIST":
                stack.append(since_mark())
            elif name == "DICT":
                stack.append(_fill({}, _pairs(since_mark())))
            elif name in ("SETITEM", "SETITEMS"):
                items = since_mark() if name == "SETITEMS" else pop(2)
                if stack[-1] is not _ASIDE:
                    _fill(stack[-1], _pairs(items))
            elif name in ("APPEND", "APPENDS", "ADDITEMS"):
                items = pop(1) if name == "APPEND" else since_mark()
                if stack[-1] is not _ASIDE:
                    stack[-1].extend(items)  # nothing but a list can be extended
            elif name == "NEWOBJ":
                stack.append(_object(*pop(2)))
            elif name == "GLOBAL":
                stack.append(_allowed(value.replace(" ", ".", 1)))
            elif name == "STACK_GLOBAL":
                stack.append(_allowed(".".join(map(_text, pop(2)))))
            elif name == "REDUCE":
                stack.append(self._call(*pop(2)))
            elif name == "BUILD":
                stack.pop()
                if not isinstance(stack[-1], dict | _Aside):
                    raise Unreadable("it holds an object with attributes, not only tensors")
            elif name == "BINPERSID":
                stack.append(self._storage(stack.pop()))
            elif name == "POP":
                stack.pop()
            elif name == "POP_MARK":
                since_mark()
            elif name == "STOP":
                return stack.pop()
            elif name not in ("PROTO", "FRAME"):
                raise Unreadable(f"it holds the opcode {name}, which torch.save does not write")
        raise Unreadable("it ends before its pickle does")

    def _work(self, steps: int) -> None:
        self._steps += steps
        if self._steps > _STEPS:
            raise Unreadable(
                f"its pickle has more than {_STEPS} opcodes: save the state_dict alone"
            )

    def _call(self, function: Any, arguments: Any) -> Any:
        if not (isinstance(function, _Name) and isinstance(arguments, tuple)):
            raise Unreadable("it calls what is no function")
        if function in _SET_ASIDE:
            return _ASIDE
        if function == _DICTIONARY:
            pairs = arguments[0] if arguments else []
            if isinstance(pairs, dict):
                pairs = pairs.items()
            self._work(len(pairs))
            return _fill({}, pairs)
        if function == _SIZE:
            return _integers(arguments[0])
        if function in _TENSORS:
            storage, offset, size, stride = arguments[:4]
            if not isinstance(storage, Storage):
                raise Unreadable("it has a tensor without a storage")
            start = storage.start + _integers((offset,))[0]
            return Tensor(storage, start, _integers(size), _integers(stride))
        if function in _PARAMETERS and isinstance(arguments[0], Tensor):
            return arguments[0]
        raise Unreadable(f"it calls {function}, not for a tensor")

    def _storage(self, identity: Any) -> Storage:
        if not isinstance(identity, tuple) or len(identity) not in (5, 6):
            raise Unreadable("it holds what is no storage")
        tag, kind, key, _, count, *view = identity
        if tag != "storage":
            raise Unreadable(f"it holds a {shorten(_text(tag))}, not only tensors")
        is_kind = isinstance(kind, _Name) and kind in _STORAGES
        if not (is_kind and isinstance(key, str)):
            raise Unreadable("it holds a storage without a name, or of no known type")
        declared = (_STORAGES[kind], _integers((count,))[0])
        if self.storages.setdefault(_key(key), declared) != declared:
            raise Unreadable(f"it holds two different storages named {shorten(key)}")
        # Files of before 0.4 may say which part of a storage is meant: (key, start, length).
        start = view[0][1] if view and view[0] else 0
        return Storage(key, declared[0], _integers((start,))[0])


def _object(kind: Any, arguments: Any) -> _Aside:
    if isinstance(kind, _Name) and kind in _SET_ASIDE:
        return _ASIDE
    raise Unreadable("it makes an object that is no tensor")


def _allowed(name: str) -> _Name:
    if name not in _NAMES and name not in _SET_ASIDE:
        raise Unreadable(
            f"it holds {shorten(name)}, and only tensors, dictionaries and plain values are "
            "read: save the state_dict alone"
        )
    return _Name(name)


def _text(value: Any) -> str:
    """What is no text is not printed: short files hold tuples whose text has no end."""
    return value if isinstance(value, str) else type(value).__name__


def _plain(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > _INTEGER_BITS:
        raise Unreadable(f"it holds an integer of {value.bit_length()} bits")
    return value


def _integers(values: Any) -> tuple[int, ...]:
    """Sizes and strides of a tensor."""
    is_short = isinstance(values, (tuple, list)) and len(values) <= _AXES
    if not is_short or any(type(value) is not int for value in values):
        raise Unreadable(f"it has a tensor whose size is not a list of at most {_AXES} integers")
    return tuple(values)


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(items[::2], items[1::2], strict=True))


def _fill(dictionary: Any, pairs: Iterable[Any]) -> dict:
    if not isinstance(dictionary, dict):
        raise Unreadable("it sets an item of what is no dictionary")
    for key, value in pairs:
        if isinstance(key, (str, int)):
            dictionary[_key(key)] = value
    return dictionary


def _key(key: str | int) -> str | int:
    """Comparing two long and equal texts takes long, and a file may ask for it often."""
    if isinstance(key, str) and len(key) > _KEY_LENGTH:
        raise Unreadable(f"it holds a name of {len(key)} characters")
    return key
