"""Writes the files of `torch.save` opcode by opcode, so that PyTorch is not needed, nor trusted."""

import pickle
import zipfile

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int8": "CharStorage",
    "bool": "BoolStorage",
}


def plain(value):
    """The opcodes of a plain value, without header and end."""
    return pickle.dumps(value, 2)[2:-1]


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def called(function, *arguments):
    """The opcodes of function(*arguments), all of them opcodes."""
    return function + b"(" + b"".join(arguments) + b"tR"


def dictionary(items):
    """The opcodes of {name: opcodes}."""
    return b"}(" + b"".join(plain(name) + value for name, value in items.items()) + b"u"


def tensor(key, dtype, numel, size, stride, offset=0, legacy=False):
    """The opcodes of a tensor on the storage `key`."""
    parts = [plain("storage"), named("torch", STORAGES[dtype]), *map(plain, (key, "cpu", numel))]
    storage = b"(" + b"".join(parts) + (b"N" if legacy else b"") + b"tQ"
    hooks = called(named("collections", "OrderedDict"))
    rebuild = named("torch._utils", "_rebuild_tensor_v2")
    numbers = [plain(value) for value in (offset, tuple(size), tuple(stride), False)]
    return called(rebuild, storage, *numbers, hooks)


def parameter(opcodes):
    hooks = called(named("collections", "OrderedDict"))
    return called(named("torch._utils", "_rebuild_parameter"), opcodes, b"\x88", hooks)


def write_zip(path, tree, storages):
    """A file since version 1.6: the opcodes of a tree and {key: array}."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + tree + b".")
        archive.writestr("archive/byteorder", "little")
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())


def write_legacy(path, tree, storages):
    """A file of before version 1.6."""
    with path.open("wb") as file:
        machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2}}
        for value in (0x1950A86A20F9469CFC6C, 1001, machine):
            file.write(pickle.dumps(value, 2))
        file.write(b"\x80\x02" + tree + b".")
        file.write(pickle.dumps(list(storages), 2))
        for array in storages.values():
            file.write(array.size.to_bytes(8, "little") + array.tobytes())
