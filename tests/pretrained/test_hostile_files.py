"""Damaged and malicious files: one line each, without the memory and the time they ask for."""

import io
import os
import pickle
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict

import bombs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_pickles import dictionary, plain, tensor, write_zip

from jaxtl.pretrained.files import read_file
from jaxtl.pretrained.torch_pickle import TorchPickle

FILES = bombs.valid()
ONE_LINE = r"^cannot read .*\.$"


def refused(path):
    """The message, one line."""
    with pytest.raises(ValueError, match=ONE_LINE) as caught:
        read_file(path)
    message = str(caught.value).removeprefix(f"cannot read {path}: ")
    assert len(message) < 500 and message.isprintable()
    return message


@pytest.mark.parametrize("name", bombs.QUICK)
def test_small_files_that_ask_for_much_are_refused_at_once(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(bombs.QUICK[name])
    assert path.stat().st_size < 2**20
    started = time.perf_counter()
    refused(path)
    assert time.perf_counter() - started < 5


@pytest.mark.slow
def test_the_worst_files_below_a_megabyte_take_two_gigabytes_and_half_a_minute(tmp_path):
    paths = []
    for name, content in (bombs.slow() | bombs.QUICK).items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(content)
    code = """import pathlib, resource, sys, time
from jaxtl.pretrained.files import read_file
resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30,) * 2)
for name in sys.argv[1:]:
    started = time.perf_counter()
    try:
        read_file(pathlib.Path(name))
    except ValueError as error:
        print(name, "MemoryError" if "Memory" in str(error) else "refused", end=" ")
    print(time.perf_counter() - started)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == list(map(str, paths)), result.stderr
    assert {row[1] for row in rows} == {"refused"}
    assert max(float(row[2]) for row in rows) < 30


def harmless(path):
    """Arrays of a damaged file, or None."""
    try:
        return read_file(path).arrays
    except ValueError as error:
        assert str(error).startswith(f"cannot read {path}: ") and "\n" not in str(error)
        return None


@pytest.mark.parametrize("name", FILES)
@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(draw=st.data())
def test_damaged_files_are_refused_or_hold_what_they_held(tmp_path, name, draw):
    content = bytearray(FILES[name])
    length = draw.draw(st.integers(1, len(content)))
    flips = draw.draw(st.dictionaries(st.integers(0, length - 1), st.integers(0, 255), max_size=3))
    damaged = content[:length]
    for place, byte in flips.items():
        damaged[place] = byte
    path = tmp_path / name
    path.write_bytes(damaged)
    os.utime(path, ns=(time.time_ns(), time.time_ns()))
    arrays = harmless(path)
    if length < len(content) and not flips:
        assert arrays is None
    if damaged == content:
        assert arrays is not None
    if arrays is not None and zipfile.is_zipfile(path):  # their members have sums
        assert all(np.array_equal(array, bombs.NUMBERS.reshape(2, 3)) for array in arrays.values())


@pytest.mark.parametrize("name", FILES)
def test_files_cut_anywhere(tmp_path, name):
    path, size = tmp_path / name, len(FILES[name])
    for length in {*range(0, size, 7), *range(size - 30, size)}:
        path.write_bytes(FILES[name][:length])
        os.utime(path, ns=(length, length))
        refused(path)
    path.write_bytes(FILES[name])
    np.testing.assert_array_equal(read_file(path).arrays["x"], bombs.NUMBERS.reshape(2, 3))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"\0" * 257 + b"ustar\0" + b"\0" * 500, "a tar archive of a PyTorch before 0.2"),
        ("a.pth", b"", "it is empty"),
        ("a.npz", b"", "it is empty"),
        ("a.npz", bombs.archive({"readme.txt": b"x"}), "it holds readme.txt, which is no array"),
        ("a.npz", bombs.archive({"x.npy": b"x"}), "x.npy has no header of an array|magic"),
        (
            "a.npz",
            bombs.npy({"descr": "<M8[s]", "fortran_order": False, "shape": (1,)}, bytes(8)),
            "x.npy holds datetime64.s., no numbers",
        ),
        (
            "a.safetensors",
            bombs.safetensors(
                {"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, bytes(4)
            ),
            "types that are not read: w F8_E4M3; expected F64, F32",
        ),
        ("a.safetensors", bombs.QUICK["twice.safetensors"], "names in its header are the same"),
        ("a.pth", bombs.QUICK["views.pth"], "would take .* bytes, its storages have 880000"),
        ("a.npz", bombs.QUICK["zeros.npz"], "would unpack to .*, more than 67108864: save it with"),
        ("a.npz", bombs.QUICK["bzip2.npz"], "compressed by method 12, expected none or deflate"),
        ("a.pth", bombs.QUICK["names.pth"], "it holds a name of 100000 characters"),
    ],
)
def test_what_is_said(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_file(tmp_path / name)


def test_members_of_an_archive_that_share_bytes_or_names(tmp_path):
    content = bytearray(bombs.archive({f"{n}.npy": bombs.zeros(1) for n in "ab"}))
    entry = content.rfind(b"PK\x01\x02")
    content[entry + 42 : entry + 46] = bytes(4)  # the second one starts where the first does
    (tmp_path / "a.npz").write_bytes(content)
    refused(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(content.replace(b"b.npy", b"a.npy"))
    assert refused(tmp_path / "b.npz") == "two of its members have the same name."


def weights(value):
    return dictionary({"w": tensor(value, "float32", 6, (6,), (1,))})


NUMBERS = {"a": np.zeros(6, np.float32), "b": np.ones(6, np.float32)}


@pytest.mark.parametrize(
    ("tree", "value", "remark"),
    [
        ({"state_dict": "a", "ema": "b"}, 0, "tensors of 'state_dict', not of 'ema'"),
        ({"state_dict_ema": "b", "model": "a"}, 0, "tensors of 'model', not of 'state_dict_ema'"),
        ({"model_ema": "b"}, 1, "tensors of 'model_ema'"),
        ({"net": "b", "acc": None}, 1, "tensors of 'net'"),
    ],
)
def test_which_of_several_dictionaries_is_taken(tmp_path, tree, value, remark):
    tree = {name: weights(key) if key else plain(91.5) for name, key in tree.items()}
    write_zip(tmp_path / "a.pth", dictionary(tree), NUMBERS)
    file = read_file(tmp_path / "a.pth")
    np.testing.assert_array_equal(file.arrays["w"], np.full(6, value))
    assert file.remark == remark


def test_several_dictionaries_of_which_none_is_the_models(tmp_path):
    tree = dictionary({"student": weights("a"), "teacher": weights("b")})
    write_zip(tmp_path / "a.pth", tree, NUMBERS)
    message = refused(tmp_path / "a.pth")
    assert message.startswith("it holds several dictionaries of tensors, 'student', 'teacher': ")


def test_tensors_that_share_their_numbers_are_one_array(tmp_path):
    tied = {f"w{i}": tensor("a", "float32", 6, (6,), (1,)) for i in range(30)}
    write_zip(tmp_path / "a.pth", dictionary(tied), NUMBERS)
    arrays = read_file(tmp_path / "a.pth").arrays
    assert len(arrays) == 30 and all(array is arrays["w0"] for array in arrays.values())


PLAIN = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
VALUES = st.recursive(
    PLAIN | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4).map(OrderedDict)
    ),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(value=VALUES, protocol=st.integers(0, 5), twice=st.booleans())
def test_plain_values_are_what_pickle_says(value, protocol, twice):
    value = [value, value] if twice else value
    content = io.BytesIO(pickle.dumps(value, protocol) + b"rest")
    assert TorchPickle().load(content) == value
    assert content.read() == b"rest"
