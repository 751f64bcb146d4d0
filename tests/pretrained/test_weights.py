"""Strict loading: every leaf, or one error that lists all that is wrong; and the way back."""

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxtl import pretrained
from jaxtl.plan.reading import Wanted
from jaxtl.pretrained import CONV, DENSE, SAME, Entry, Scheme

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def wanted(**shapes):
    return {
        path.replace("__", "/"): jax.ShapeDtypeStruct(shape, np.float32)
        for path, shape in shapes.items()
    }


def cropped(array, shape):
    if len(array) < shape[0]:
        raise ValueError(f"{len(array)} positions cannot become {shape[0]}")
    return array[: shape[0]]


NAMES = {
    "backbone/a/query": Entry("a.qkv.weight", DENSE, 0, 3),
    "backbone/a/key": Entry("a.qkv.weight", DENSE, 1, 3),
    "backbone/a/value": Entry("a.qkv.weight", DENSE, 2, 3),
    "backbone/a/kernel": Entry("a.conv.weight", CONV),
    "backbone/a/positions": Entry("a.pos"),
    "backbone/a/mean": Entry("a.running_mean", SAME),
    "heads/imagenet/kernel": Entry("fc.weight", DENSE),
}


def scheme(name, prefix=""):
    def entry(path):
        return NAMES[path]._replace(name=prefix + NAMES[path].name) if path in NAMES else None

    adapt = {r"backbone/.*/positions": cropped}
    return Scheme(name, entry, (r".*\.counter",), adapt, (rf"{prefix}fc\.weight",))


SCHEMES = (scheme("ours"), scheme("theirs", "net."))
EXTRA = (r".*a\.extra",)
FILE = {
    "a.qkv.weight": normal(6, 4),
    "a.conv.weight": normal(5, 3, 2, 7),
    "a.pos": normal(9, 2),
    "a.running_mean": normal(5),
    "a.counter": np.array([3]),
    "a.extra": normal(1),
    "fc.weight": normal(10, 5),
}
ALL = wanted(
    backbone__a__query=(4, 2),
    backbone__a__key=(4, 2),
    backbone__a__value=(4, 2),
    backbone__a__kernel=(2, 7, 3, 5),
    backbone__a__positions=(6, 2),
    backbone__a__mean=(5,),
    heads__imagenet__kernel=(5, 10),
)


@pytest.fixture
def path(tmp_path):
    save_file(FILE, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def test_every_layout_and_what_the_report_says(path):
    leaves, report = pretrained.weights(path, SCHEMES, head="imagenet", unused=EXTRA).read(ALL)
    expected = {
        "backbone/a/query": FILE["a.qkv.weight"][:2].T,
        "backbone/a/key": FILE["a.qkv.weight"][2:4].T,
        "backbone/a/value": FILE["a.qkv.weight"][4:].T,
        "backbone/a/kernel": np.moveaxis(FILE["a.conv.weight"], (0, 1), (3, 2)),
        "backbone/a/positions": FILE["a.pos"][:6],
        "backbone/a/mean": FILE["a.running_mean"],
        "heads/imagenet/kernel": FILE["fc.weight"].T,
    }
    assert leaves.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(leaves[name], value)
    assert report.splitlines() == [
        f"{path}: 7 arrays by the names of ours",
        "  cut out, transposed (3): backbone/a/query, backbone/a/key, backbone/a/value",
        "  OIHW to HWIO (1): backbone/a/kernel",
        "  adapted (1): backbone/a/positions",
        "  as they are (1): backbone/a/mean",
        "  transposed (1): heads/imagenet/kernel",
        "  unused in the file (1): a.extra",
    ]


def test_the_names_that_fit_best_are_taken(tmp_path):
    path = tmp_path / "b.npz"
    np.savez(path, **{f"net.{name}": value.astype(np.float64) for name, value in FILE.items()})
    leaves, report = pretrained.weights(path, SCHEMES, head="imagenet", unused=EXTRA).read(ALL)
    assert "7 arrays by the names of theirs" in report
    assert leaves["backbone/a/mean"].dtype == np.float32
    np.testing.assert_array_equal(leaves["backbone/a/mean"], FILE["a.running_mean"])


def test_all_that_does_not_fit_is_in_one_error(path):
    missing = wanted(
        backbone__a__query=(4, 3),
        backbone__a__kernel=(2, 7, 3),
        backbone__a__positions=(12, 2),
        backbone__a__strange=(1,),
        backbone__a__mean=(5,),
        heads__imagenet__kernel=(5, 37),
        heads__target__kernel=(5, 2),
    )
    renamed = dict(FILE, a_running_mean=FILE["a.running_mean"])
    del renamed["a.running_mean"]
    save_file(renamed, path)
    with pytest.raises(ValueError) as caught:
        pretrained.weights(path, SCHEMES[:1], head="imagenet").read(missing)
    assert str(caught.value).splitlines() == [
        f"cannot load 7 of 7 arrays from {path} by the names of ours:",
        "  backbone/a/query: file [4, 2] (a.qkv.weight), model [4, 3]",
        "  backbone/a/kernel: file [2, 7, 3, 5] (a.conv.weight), model [2, 7, 3]",
        "  backbone/a/positions: 9 positions cannot become 12",
        "  backbone/a/strange: has no name in ours",
        "  heads/imagenet/kernel: file [5, 10] (fc.weight), model [5, 37]",
        "  heads/target/kernel: a new head: name it in `fresh`, or as `head` if the file has it",
        "  backbone/a/mean: no a.running_mean in the file; closest there: a_running_mean, a.extra",
    ]


def test_arrays_of_another_rank_and_parts_that_do_not_divide(path):
    save_file({"a.qkv.weight": normal(7, 4), "a.conv.weight": normal(5, 3)}, path)
    some = {name: ALL[name] for name in ("backbone/a/key", "backbone/a/kernel")}
    with pytest.raises(ValueError) as caught:
        pretrained.weights(path, SCHEMES[:1]).read(some)
    assert str(caught.value).splitlines()[1:] == [
        "  backbone/a/key: file a.qkv.weight [7, 4], which does not divide into 3",
        "  backbone/a/kernel: file a.conv.weight [5, 3], model [2, 7, 3, 5]",
    ]


def test_without_a_head_the_files_classifier_is_not_used(path):
    backbone = {name: shape for name, shape in ALL.items() if name.startswith("backbone/")}
    _, report = pretrained.weights(path, SCHEMES, unused=EXTRA).read(backbone)
    assert "unused in the file (2): a.extra, fc.weight" in report
    with pytest.raises(ValueError, match=r"cannot load 1 of 7 .*\n.*imagenet/kernel: a new head"):
        pretrained.weights(path, SCHEMES).read(ALL)


def test_saving_is_the_way_back(path, tmp_path):
    weights = pretrained.weights(path, SCHEMES, head="imagenet", unused=EXTRA)
    leaves, _ = weights.read(ALL)
    new = {"heads/target/kernel": normal(5, 2), "backbone/a/adapter": normal(3).astype(np.float16)}
    moved = leaves | new | {"backbone/a/key": leaves["backbone/a/key"] + 1}
    weights.save(tmp_path / "b.safetensors", moved)
    (tmp_path / "plain").write_text("")
    modes = {file.stat().st_mode for file in (tmp_path / "b.safetensors", tmp_path / "plain")}
    assert len(modes) == 1  # as the umask has it
    written = load_file(tmp_path / "b.safetensors")
    expected = {name: value for name, value in FILE.items() if name not in ("a.counter", "a.extra")}
    expected |= new | {"a.pos": FILE["a.pos"][:6]}
    expected["a.qkv.weight"] = FILE["a.qkv.weight"] + np.float32([0, 0, 1, 1, 0, 0])[:, None]
    assert written.keys() == expected.keys()
    for name, value in expected.items():
        assert written[name].dtype == value.dtype
        np.testing.assert_array_equal(written[name], value)


def test_a_fused_array_of_which_a_part_is_missing_is_not_written(path, tmp_path):
    weights = pretrained.weights(path, SCHEMES)
    some = {name: ALL[name] for name in ("backbone/a/query", "backbone/a/value")}
    leaves, _ = weights.read(Wanted(some, others=None))
    weights.save(tmp_path / "b.safetensors", leaves)
    written = load_file(tmp_path / "b.safetensors")
    assert written.keys() == {"backbone/a/query", "backbone/a/value"}
    np.testing.assert_array_equal(written["backbone/a/query"], leaves["backbone/a/query"])


def test_weights_are_equal_by_where_they_come_from_and_how(path):
    first = pretrained.weights(path, SCHEMES, head="imagenet")
    assert first == pretrained.weights(str(path), list(SCHEMES), head="imagenet")
    assert hash(first) == hash(pretrained.weights(str(path), SCHEMES, head="imagenet"))
    assert first != pretrained.weights(path, SCHEMES)
    assert first != pretrained.weights(path, SCHEMES[:1], head="imagenet")
    assert first != pretrained.weights(Path("b.npz"), SCHEMES, head="imagenet")
    lite = [pretrained.efficientnet_lite(variant) for variant in ("lite0", "lite0", "lite1")]
    assert lite[0] == lite[1] != lite[2]
    assert len(first.digest()) == 64 and first.name == str(path)
