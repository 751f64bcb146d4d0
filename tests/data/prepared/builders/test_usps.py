import bz2

import numpy as np
import pytest

from jaxtl import data


def line(digit, values):
    return f"{digit + 1} " + " ".join(f"{i + 1}:{v:.6g}" for i, v in enumerate(values)) + "\n"


@pytest.fixture
def small(monkeypatch):
    """USPS as if 12 train and 1 test image had been published, without sums."""
    from jaxtl.data.prepared.builders.usps import Original, Usps

    files = {"train": "usps.bz2", "test": "usps.t.bz2"}
    originals = {split: Original(file, "https://page") for split, file in files.items()}
    monkeypatch.setattr(Usps, "ORIGINALS", originals)
    monkeypatch.setattr(Usps, "COUNTS", {"train": 12, "test": {"9": 1}})


def test_usps_from_local_files(tmp_path, small):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    rng = np.random.default_rng(0)
    values = np.round(rng.uniform(-1, 1, (12, 256)), 3)
    values[:, :2] = [-1, 1]
    with bz2.open(manual / "usps.bz2", "wt") as file:
        file.writelines(line(i % 10, row) for i, row in enumerate(values))
    with bz2.open(manual / "usps.t.bz2", "wt") as file:
        file.write("10 1:1 256:-1\n")
    folder = data.prepare("usps", tmp_path)
    assert folder == tmp_path / "usps" / "1.0.0"
    assert data.prepare("usps", tmp_path) == folder  # a second time changes nothing

    splits = data.tfds("usps", data_dir=tmp_path)
    train, test = splits.train.table(), splits.test.table()
    expected = np.floor(255 * (values + 1) / 2).astype(np.uint8)
    rows = [int(np.flatnonzero((expected == image.ravel()).all(1))[0]) for image in train.inputs]
    assert sorted(rows) == list(range(12)) and train.inputs.shape == (12, 16, 16, 1)
    np.testing.assert_array_equal(train.labels["label"], np.array(rows) % 10)
    image = test.inputs[0, :, :, 0]
    assert (image[0, 0], image[15, 15], image[3, 4]) == (255, 0, 127)  # absent is 0, mid grey
    assert test.labels["label"][0] == 9


def test_a_broken_file_leaves_nothing_behind(tmp_path, small):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    whole = bz2.compress("".join(line(i % 10, np.zeros(256)) for i in range(50)).encode())
    (manual / "usps.bz2").write_bytes(whole[: len(whole) // 2])
    (manual / "usps.t.bz2").write_bytes(whole)
    with pytest.raises(ValueError, match=r"cannot prepare 'usps': .*usps\.bz2 cannot be read near"):
        data.prepare("usps", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["downloads"]
    with pytest.raises(ValueError, match="--prepare=usps"):
        data.tfds("usps", data_dir=tmp_path).train.table()


def test_another_file_than_was_published_is_refused_with_both_sums(tmp_path):
    manual = tmp_path / "downloads" / "manual" / "usps"
    manual.mkdir(parents=True)
    (manual / "usps.bz2").write_bytes(b"not found")
    with pytest.raises(ValueError) as error:
        data.prepare("usps", tmp_path)
    assert str(error.value) == (
        f"cannot prepare 'usps': {manual}/usps.bz2 is not the usps.bz2 that was published, or is "
        "cut off: 9 bytes; md5:d8f4a1993546cc4b850cde3599e27aec, expected "
        "md5:ec16c51db3855ca6c91edd34d0e9b197. Get it again from "
        "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html#usps"
    )
