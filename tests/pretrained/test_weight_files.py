"""What is read from files of every format, and what is refused."""

import os
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from torch_pickles import (
    called,
    dictionary,
    named,
    parameter,
    plain,
    tensor,
    write_legacy,
    write_zip,
)

from jaxtl.pretrained.files import read_file, sha256

NUMBERS = np.array([[1.5, -2.0, 3.25], [0.0, 5.0, -6.5]])  # exact in every float type
WRITERS = pytest.mark.parametrize("write", [write_zip, write_legacy])


def same(arrays, expected):
    assert arrays.keys() == expected.keys()
    for name, value in expected.items():
        assert arrays[name].dtype == value.dtype and arrays[name].shape == value.shape
        np.testing.assert_array_equal(arrays[name], value)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "int64", "bool"])
@pytest.mark.parametrize("form", ["safetensors", "npz", "zip", "legacy"])
def test_every_type_in_every_format(tmp_path, dtype, form):
    array = NUMBERS.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    expected = array.astype(np.float32) if array.dtype.itemsize == 2 else array
    path = tmp_path / {"zip": "a.pth", "legacy": "a.bin"}.get(form, f"a.{form}")
    if form == "safetensors":
        from safetensors.numpy import save_file

        save_file({"x": array, "y": np.float32([7])}, path)
    elif form == "npz":
        np.savez(path, x=array, y=np.float32([7]))
    else:
        legacy = form == "legacy"
        tree = dictionary(
            {
                "x": tensor("0", dtype, 6, (2, 3), (3, 1), legacy=legacy),
                "y": tensor("1", "float32", 1, (1,), (1,), legacy=legacy),
            }
        )
        write = write_legacy if legacy else write_zip
        write(path, tree, {"0": array, "1": np.float32([7])})
    same(read_file(path).arrays, {"x": expected, "y": np.float32([7])})


@WRITERS
def test_strides_and_offsets_of_tensors(tmp_path, write):
    numbers = np.arange(24, dtype=np.float32)
    views = {
        "whole": ((2, 3, 4), (12, 4, 1), 0),
        "transposed": ((4, 3, 2), (1, 4, 12), 0),
        "column": ((2, 3), (12, 4), 3),
        "step": ((3,), (5,), 7),
        "scalar": ((), (), 23),
        "empty": ((0, 3), (3, 1), 0),
    }
    places = {n: tensor("0", "float32", 24, *view) for n, view in views.items()}
    write(tmp_path / "a.pth", dictionary(places), {"0": numbers})
    cube = numbers.reshape(2, 3, 4)
    expected = {
        "whole": cube,
        "transposed": cube.transpose(2, 1, 0),
        "column": cube[:, :, 3],
        "step": numbers[7::5][:3],
        "scalar": numbers[23],
        "empty": np.zeros((0, 3), np.float32),
    }
    same(read_file(tmp_path / "a.pth").arrays, expected)


@WRITERS
@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_wrappers_are_taken_off_and_named(tmp_path, write, wrapper):
    x = tensor("0", "float32", 6, (2, 3), (3, 1))
    inner = dictionary({"module.x": parameter(x), "module.steps": plain(3)})
    tree = dictionary({"epoch": plain(90), "best": plain([0.5, None, "x"]), wrapper: inner})
    write(tmp_path / "a.pt", tree, {"0": NUMBERS.astype(np.float32)})
    file = read_file(tmp_path / "a.pt")
    same(file.arrays, {"module.x": NUMBERS.astype(np.float32)})
    assert file.remark == f"tensors of {wrapper!r}"
    for suffix in ("pth.tar", "ckpt"):
        tree = dictionary({"model": dictionary({wrapper: dictionary({"state_dict": inner})})})
        write(tmp_path / f"a.{suffix}", tree, {"0": NUMBERS.astype(np.float32)})
        file = read_file(tmp_path / f"a.{suffix}")
        same(file.arrays, {"module.x": NUMBERS.astype(np.float32)})
        assert file.remark == f"tensors of 'state_dict' in {wrapper!r} in 'model'"


def made(kind, *arguments):
    """The opcodes of an object as protocol 2 has it: NEWOBJ."""
    return kind + b"(" + b"".join(arguments) + b"t\x81"


@WRITERS
def test_what_stands_beside_the_tensors_of_a_checkpoint_is_set_aside(tmp_path, write):
    x = tensor("0", "float32", 6, (2, 3), (3, 1))
    attributes = named("lightning_fabric.utilities.data", "AttributeDict")
    space = made(named("argparse", "Namespace")) + plain({"lr": 0.1}) + b"b"
    beside = {
        "hyper_parameters": made(attributes) + b"(" + plain("rate") + plain(0.1) + b"u",
        "args": space,
        "path": called(named("pathlib", "PosixPath"), plain("a")),
        "best": called(
            named("numpy.core.multiarray", "scalar"),
            called(named("numpy", "dtype"), plain("f8")),
            plain(b"12345678"),
        ),
        "callbacks": dictionary({"a": called(named("collections", "defaultdict"))}),
        "seen": called(named("builtins", "set"), plain([1, 2])),
    }
    tree = {"state_dict": dictionary({"model.x": x}), "epoch": plain(3), **beside}
    write(tmp_path / "a.ckpt", dictionary(tree), {"0": NUMBERS.astype(np.float32)})
    same(read_file(tmp_path / "a.ckpt").arrays, {"model.x": NUMBERS.astype(np.float32)})
    hostile = made(named("subprocess", "Popen"), plain("true"))
    for name, value in (("a", hostile), ("b", made(named("torch._utils", "_rebuild_tensor_v2")))):
        write(tmp_path / "b.ckpt", dictionary({**tree, name: value}), {"0": NUMBERS})
        with pytest.raises(ValueError, match=r"it holds subprocess.Popen|an object that is no te"):
            read_file(tmp_path / "b.ckpt")


@WRITERS
def test_pickles_that_could_run_something_are_refused(tmp_path, write):
    trap = tmp_path / "trap"
    command = called(named("os", "system"), plain(f"touch {trap}"))
    write(tmp_path / "a.pth", dictionary({"x": command}), {})
    with pytest.raises(ValueError, match=r"cannot read .*a.pth: it holds os.system, and only tens"):
        read_file(tmp_path / "a.pth")
    for module, name in (("builtins", "eval"), ("torch", "load"), ("collections", "Counter")):
        write(tmp_path / "a.pth", dictionary({"x": called(named(module, name), plain("1"))}), {})
        with pytest.raises(ValueError, match=f"it holds {module}.{name}, and only tensors"):
            read_file(tmp_path / "a.pth")
    # The same as `torch.save(model)` makes it.
    write(tmp_path / "a.pth", called(named("torchvision.models.resnet", "ResNet")), {})
    with pytest.raises(
        ValueError, match=r"holds torchvision.models.resnet.ResNet.*state_dict alon"
    ):
        read_file(tmp_path / "a.pth")
    assert not trap.exists()


@WRITERS
@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((7,), (1,), 0), ((2, 3), (3, 2), 0), ((2,), (1,), 5), ((2,), (-1,), 3), ((10**9,), (0,), 0)],
)
def test_tensors_outside_of_their_storage(tmp_path, write, size, stride, offset):
    tree = dictionary({"x": tensor("0", "float32", 6, size, stride, offset)})
    write(tmp_path / "a.pth", tree, {"0": NUMBERS.astype(np.float32)})
    with pytest.raises(ValueError, match=r"cannot read .*a.pth: it has a tensor outside of its st"):
        read_file(tmp_path / "a.pth")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth", ".bin"])
def test_a_file_cut_anywhere_is_one_clear_error(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    x = NUMBERS.astype(np.float32)
    if suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({"x": x}, path)
    elif suffix == ".npz":
        np.savez(path, x=x)
    else:
        write = write_zip if suffix == ".pth" else write_legacy
        write(path, dictionary({"x": tensor("0", "float32", 6, (2, 3), (3, 1))}), {"0": x})
    whole = path.read_bytes()
    for length in {0, 1, 9, len(whole) // 3, len(whole) // 2, len(whole) - 5, len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cannot read .*/a\.\w+: \w.*\.$") as caught:
            read_file(path)
        assert "\n" not in str(caught.value)


def test_numbers_that_are_missing_are_said_to_be(tmp_path):
    path, x = tmp_path / "a.pth", NUMBERS.astype(np.float32)
    write_legacy(path, dictionary({"x": tensor("0", "float32", 6, (2, 3), (3, 1))}), {"0": x})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"a.pth: the file ends before its tensors do."):
        read_file(path)


def test_other_files_under_a_known_suffix(tmp_path):
    path = tmp_path / "a.pth"
    cases = {
        pickle.dumps({"x": 1}, 2): "it is no file of torch.save",
        b"<!DOCTYPE html><html>": "cannot read .*a.pth: \\w+",
    }
    for content, message in cases.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no tensors")
    with pytest.raises(ValueError, match=r"a zip archive, but not one of torch.save"):
        read_file(path)
    write_zip(path, plain([1, 2]), {})
    with pytest.raises(ValueError, match=r"it holds a list, not a dictionary of tensors"):
        read_file(path)
    write_zip(path, dictionary({"lr": plain(0.1)}), {})
    with pytest.raises(ValueError, match=r"a.pth: it holds no arrays"):
        read_file(path)
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"cannot read .*a.npz: .*allow_pickle=False"):
        read_file(tmp_path / "a.npz")


def test_an_unknown_suffix(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"x")
    expected = (
        r"its suffix is '\.h5', expected \.safetensors, \.npz, \.pth, \.pt, \.bin, \.ckpt, \.tar\."
    )
    with pytest.raises(ValueError, match=expected):
        read_file(path)


def test_a_file_is_read_once_until_it_changes(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros(3))
    first, digest = read_file(path).arrays, sha256(path)
    assert read_file(path).arrays is first
    with pytest.raises(ValueError, match="read-only"):
        first["x"][0] = 1
    np.savez(path, x=np.ones(4))
    os.utime(path, ns=(0, 0))
    np.testing.assert_array_equal(read_file(path).arrays["x"], np.ones(4))
    assert sha256(path) != digest


def test_pytorchs_own_files(tmp_path):
    torch = pytest.importorskip("torch")
    values = torch.arange(24.0).reshape(2, 3, 4)
    layer = torch.nn.BatchNorm2d(3)
    state = {"t": values.permute(2, 0, 1)[1:], "h": values.half(), "b": values.bfloat16()}
    state |= layer.state_dict() | {"p": torch.nn.Parameter(values), "i": values.int() % 5 == 0}
    for new in (True, False):
        torch.save({"model": state}, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
        expected = {
            name: (value.float() if value.is_floating_point() else value).detach().numpy()
            for name, value in state.items()
        }
        same(read_file(tmp_path / "a.pt").arrays, expected)
