"""Small files that ask for much: {file name: content}, each below 1 MB."""

import io
import json
import pickle
import struct
import zipfile

import numpy as np
from torch_pickles import called, dictionary, named, plain, tensor

DEFLATE = zipfile.ZIP_DEFLATED


def pickled(opcodes):
    return b"\x80\x02" + opcodes + b"."


def archive(members, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return file.getvalue()


def torch_zip(opcodes, method=zipfile.ZIP_STORED, **storages):
    data = {f"a/data/{key}": array.tobytes() for key, array in storages.items()}
    return archive({"a/data.pkl": pickled(opcodes)} | data, method)


def torch_legacy(tree, rest=b""):
    values = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    return b"".join(pickle.dumps(value, 2) for value in values) + pickled(tree) + rest


def npy(header, content=b"", version=1):
    text = header if isinstance(header, bytes) else repr(header).encode()
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return archive({"x.npy": b"\x93NUMPY" + bytes([version, 0]) + length + text + content})


def zeros(megabytes):
    """A file of NumPy with as many zeros."""
    file = io.BytesIO()
    np.save(file, np.zeros(megabytes * 2**18, np.float32))
    return file.getvalue()


def safetensors(header, content=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def lying(content, size):
    """An archive whose only member says that it unpacks to 100 bytes."""
    return content.replace(struct.pack("<I", size), struct.pack("<I", 100))


def views(count, size):
    """Tensors that each see nearly all of one storage."""
    places = {f"v{i}": tensor("s", "float32", size, (size - i,), (1,), i) for i in range(count)}
    return torch_zip(dictionary(places), s=np.zeros(size, np.float32))


def doubled(times):
    """Opcodes of x = (), then x = (x, x) again and again; it ends under the memo's last number."""
    steps = (b"0h%ch%c\x86q%c" % (i, i, i + 1) for i in range(times))
    return b")q\x00" + b"".join(steps) + b"0"


X = tensor("s", "float32", 6, (6,), (1,), legacy=True)
LONG_NAME = b"X" + struct.pack("<I", 100_000) + b"k" * 100_000

QUICK = {
    # a memo of 2**28 places, lengths that nothing follows
    "memo.pth": b"\x80\x02Nr\xff\xff\xff\x0f0N.",
    "bytearray.pth": b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b"x.",
    "bytes.pth": b"\x80\x04\x8e" + struct.pack("<Q", 2**33) + b"x.",
    "text.pth": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "frame.pth": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "integer.pth": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "long_integer.pth": torch_zip(b"\x8b" + struct.pack("<i", 9_000) + b"\x7f" * 9_000),
    "digits.pth": torch_zip(b"L" + b"9" * 900_000 + b"L\n"),
    # as keys, these would be hashed for 2**60 steps
    "key.pth": torch_zip(doubled(60) + b"}h\x3cNs"),
    "storage_key.pth": torch_legacy(dictionary({"x": X}), pickled(doubled(60) + b"]h\x3ca")),
    "value.pth": torch_zip(doubled(60) + b"}X\x01\x00\x00\x00ah\x3cs"),
    "persistent.pth": torch_zip(doubled(60) + b"h\x3cQ"),
    "tag.pth": torch_zip(doubled(60) + b"h\x3cNNNN\x28h\x3cNNNNtQ"),
    "module.pth": torch_zip(doubled(60) + b"h\x3ch\x3c\x93"),
    "size.pth": torch_zip(called(named("torch", "Size"), doubled(60) + b"h\x3c")),
    "names.pth": torch_zip(b"}" + LONG_NAME + b"q\x000" + b"h\x00Ns"),
    "global.pth": torch_zip(b"c" + b"a" * 400_000 + b"\n" + b"b" * 400_000 + b"\n"),
    "copies.pth": torch_zip(b"]" + b"2" * 900_000),
    "self.pth": torch_zip(b"}q\x00X\x05\x00\x00\x00modelh\x00s"),
    # views, strides and counts
    "views.pth": views(900, 220_000),
    "stride.pth": torch_zip(
        dictionary({"x": tensor("s", "float32", 6, (10**9,), (0,))}), s=np.zeros(6, np.float32)
    ),
    "axes.pth": torch_zip(
        dictionary({"x": tensor("s", "float32", 6, (1,) * 40, (1,) * 40)}),
        s=np.zeros(6, np.float32),
    ),
    "count.pth": torch_zip(
        dictionary({"x": tensor("s", "float32", 2**60, (6,), (1,))}), s=np.zeros(6, np.float32)
    ),
    "legacy_count.pth": torch_legacy(
        dictionary({"x": X}), pickle.dumps(["s"], 2) + struct.pack("<Q", 2**61) + bytes(24)
    ),
    "numbers.pth": torch_zip(
        dictionary({"x": tensor("s", "float32", 6, (2.5,), (True,))}), s=np.zeros(6, np.float32)
    ),
    # archives
    "zeros.npz": archive({"x.npy": zeros(80)}, DEFLATE),
    "lying.npz": lying(archive({"x.npy": bytes(80 << 20)}, DEFLATE), 80 << 20),
    "lying.pth": lying(archive({"a/data.pkl": bytes(80 << 20)}, DEFLATE), 80 << 20),
    "deflate.pth": archive({"a/data.pkl": bytes(20 << 20)}, DEFLATE),
    "bzip2.npz": archive({"x.npy": zeros(1)}, zipfile.ZIP_BZIP2),
    "lzma.pth": archive({"a/data.pkl": bytes(2**20)}, zipfile.ZIP_LZMA),
    # headers
    "shape.npz": npy({"descr": "<f4", "fortran_order": False, "shape": (2 * 10**9,)}, b"abcd"),
    "negative.npz": npy({"descr": "<f4", "fortran_order": False, "shape": (-1, -1)}, b"abcd"),
    "empty.npz": npy({"descr": "<f4", "fortran_order": False, "shape": (0, 2**70)}),
    "wide.npz": npy({"descr": "|V1000000000", "fortran_order": False, "shape": ()}),
    "words.npz": npy({"descr": "<U500000000", "fortran_order": False, "shape": (1,)}),
    "nested.npz": npy(b"(" * 5000 + b")" * 4999 + b"\n"),
    "long.npz": npy(b"[" * 800_000, version=2),
    "offsets.safetensors": safetensors(
        {"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}
    ),
    "header.safetensors": struct.pack("<Q", 2**40) + b"{}",
    "nested.safetensors": safetensors(b"[" * 900_000),
    "overlap.safetensors": safetensors(
        {n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in "ab"}, bytes(8)
    ),
    "twice.safetensors": safetensors(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "shape.safetensors": safetensors(
        {"a": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}}
    ),
}


def slow():
    """Those that take seconds to make or to refuse."""
    pairs = b"(" + b"".join(b"J" + struct.pack("<i", i) + b"h\x00" for i in range(200_000)) + b"u"
    entries = b"(" + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(200_000)) + b"u"
    again = named("collections", "OrderedDict") + b"h\x00\x85R0"
    names = LONG_NAME[:4] + b"\x00" + LONG_NAME[5:]
    many = b"](" + b"N" * 400_000 + b"tq\x000"
    return {
        "identity.pth": torch_zip(many + b"h\x00Q" * 100_000, DEFLATE),
        "opcodes.pth": torch_zip(b"N0" * 7_900_000, DEFLATE),
        "dictionaries.pth": torch_zip(b"(" + b"}" * 15_000_000 + b"l", DEFLATE),
        "lists.pth": torch_zip(b"]" * 450_000 + b"a" * 449_999),
        "tuples.pth": torch_zip(b")" + b"\x85" * 900_000),
        "same.pth": torch_zip(b"}q\x00" + entries + b"0}" + pairs, DEFLATE),
        "again.pth": torch_zip(b"}q\x00" + entries + b"0" + again * 20_000, DEFLATE),
        "gigabyte.npz": archive({"x.npy": zeros(900)}, DEFLATE),
        "lying_gigabyte.pth": lying(archive({"a/data.pkl": bytes(900 << 20)}, DEFLATE), 900 << 20),
        "names.pth": torch_zip(b"}" + names, DEFLATE),
    }


TREE = dictionary({"lr": plain(0.5), "x": tensor("s", "float32", 6, (2, 3), (3, 1))})
NUMBERS = np.arange(6, dtype=np.float32)


def valid():
    """{suffix and format: content} of small files that are read."""
    file = io.BytesIO()
    np.savez(file, x=NUMBERS.reshape(2, 3))
    legacy = pickle.dumps(["s"], 2) + struct.pack("<Q", 6) + NUMBERS.tobytes()
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    tree = dictionary({"x": tensor("s", "float32", 6, (2, 3), (3, 1), legacy=True)})
    return {
        "zip.pth": torch_zip(TREE, s=NUMBERS),
        "legacy.pth": torch_legacy(tree, legacy),
        "a.npz": file.getvalue(),
        "a.safetensors": safetensors({"x": entry}, NUMBERS.tobytes()),
    }
