import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from jaxtl import data

FILES = {
    "amazon": "amazon_SURF_L10.mat",
    "caltech10": "Caltech10_SURF_L10.mat",
    "dslr": "dslr_SURF_L10.mat",
    "webcam": "webcam_SURF_L10.mat",
}
REAL = Path(os.environ.get("TFDS_DATA_DIR", "nowhere"), "office_caltech10_surf")


@pytest.fixture
def manual(tmp_path, monkeypatch):
    """Where four files lie of a bike and two mugs a domain, as if those had been published."""
    from jaxtl.data.prepared.builders.office_caltech10_surf import OfficeCaltech10Surf

    counts = {domain: {"bike": 1, "mug": 2} for domain in FILES}
    monkeypatch.setattr(OfficeCaltech10Surf, "COUNTS", counts)
    folder = tmp_path / "downloads" / "manual" / "office_caltech10_surf"
    folder.mkdir(parents=True)
    for d, domain in enumerate(FILES):
        write(folder, domain, histograms(d), [2, 9, 9])
    return folder


def histograms(d):
    counts = np.zeros((3, 800))
    counts[:, d] = [1, 2, 255]
    return counts


def write(folder, domain, counts, labels):
    arrays = {"fts": np.asarray(counts, float), "labels": np.array(labels, float)[:, None]}
    scipy.io.savemat(folder / FILES[domain], arrays)


def refused(folder):
    root = folder.parents[2]
    with pytest.raises(ValueError, match="cannot prepare 'office_caltech10_surf': ") as error:
        data.prepare("office_caltech10_surf", root)
    assert not (root / "office_caltech10_surf").exists()
    return str(error.value)


def test_histograms_and_classes(tmp_path, manual):
    data.prepare("office_caltech10_surf", tmp_path)
    surf = data.tfds("office_caltech10_surf", inputs="features", data_dir=tmp_path)
    assert tuple(surf) == tuple(FILES)
    for d, domain in enumerate(FILES):
        table = surf[domain].table()
        assert table.inputs.shape == (3, 800) and table.inputs.sum() == 258
        classes = np.array(table.classes["label"])[table.labels["label"]]
        assert dict(zip(table.inputs[:, d], classes, strict=True)) == {
            1: "bike",
            2: "mug",
            255: "mug",
        }


@pytest.mark.parametrize(
    ("counts", "labels", "message"),
    [
        (histograms(0)[:2], [2, 9], "split 'amazon' .* class mug has 1, expected 2"),
        (histograms(0), [2, 9], r"fts has shape \[3, 800\], expected \[2, 800\] for 2 labels"),
        (histograms(0), [2, 9, 11], "labels must be whole numbers from 1 to 10"),
        (histograms(0) / 2, [2, 9, 9], "fts must be whole numbers from 0 to 255"),
        (histograms(0) * np.nan, [2, 9, 9], "fts must be whole numbers from 0 to 255"),
    ],
)
def test_other_numbers_are_refused(manual, counts, labels, message):
    write(manual, "amazon", counts, labels)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(refused(manual))


def test_a_wrong_or_truncated_file_is_refused(manual):
    file = manual / FILES["dslr"]
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>", b""):
        file.write_bytes(content)
        message = refused(manual)
        assert f"{file} cannot be read as a file of MATLAB: " in message
        assert message.endswith("No sum of it is published; it should hold 3 examples")
    scipy.io.savemat(file, {"X": np.ones(3)})
    assert f"{file} holds no fts and no labels" in refused(manual)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="TFDS_DATA_DIR has no office_caltech10_surf")
def test_the_real_counts_are_those_published(tmp_path):
    """The real histograms, as they stand in MATLAB's files, make the dataset that is known."""
    from tensorflow_datasets.core import hashing

    folder = tmp_path / "downloads" / "manual" / "office_caltech10_surf"
    folder.mkdir(parents=True)
    known = data.tfds("office_caltech10_surf", inputs="features", data_dir=REAL.parent)
    for domain in FILES:
        table = known[domain].table()
        keys = [hashing.Hasher(domain).hash_key(row) for row in range(len(table))]
        rows = np.argsort(np.argsort(keys))  # of the file in the dataset
        write(folder, domain, table.inputs[rows], table.labels["label"][rows] + 1)
    data.prepare("office_caltech10_surf", tmp_path)
    made = data.tfds("office_caltech10_surf", inputs="features", data_dir=tmp_path)
    for domain in FILES:
        old, new = known[domain].table(), made[domain].table()
        np.testing.assert_array_equal(new.inputs, old.inputs)
        np.testing.assert_array_equal(new.labels["label"], old.labels["label"])
        assert new.classes == old.classes
