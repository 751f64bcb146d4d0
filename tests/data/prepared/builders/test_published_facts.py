"""What builders say of the published files: sums of the right length, totals that are known."""

import importlib

import pytest

from jaxtl import data
from jaxtl.data.prepared.tfds_folders import OWN

TOTALS = {
    "mnist_m": {"train": 59001, "test": 9001},
    "mnist_m/recipe": {"train": 60000, "test": 10000},
    "multi_domain_sentiment": dict.fromkeys(("books", "dvd", "electronics", "kitchen"), 2000),
    "notmnist": {"test": 18724},
    "notmnist/large": {"train": 529114, "test": 18724},
    "office31": {"amazon": 2817, "dslr": 498, "webcam": 795},
    "office_caltech10_surf": {"amazon": 958, "caltech10": 1123, "dslr": 157, "webcam": 295},
    "usps": {"train": 7291, "test": 2007},
}
WITHOUT_SUMS = ("multi_domain_sentiment", "office_caltech10_surf")
LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64}


def builder(name, root):
    tfds = pytest.importorskip("tensorflow_datasets")
    importlib.import_module(OWN[name.split("/")[0]])
    return tfds.builder(name, data_dir=root)


@pytest.mark.parametrize("name", TOTALS)
def test_totals(name, tmp_path):
    counts = builder(name, tmp_path).counts
    assert TOTALS[name] == {
        split: count if isinstance(count, int) else sum(count.values())
        for split, count in counts.items()
        if count is not None
    }


@pytest.mark.parametrize("name", [name for name in TOTALS if name not in WITHOUT_SUMS])
def test_each_file_that_is_not_the_published_one_is_refused(name, tmp_path):
    for original in builder(name, tmp_path).originals.values():
        for form in original if isinstance(original, tuple) else (original,):
            path = tmp_path / "downloads" / "manual" / name.split("/")[0] / form.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"not found")
            with pytest.raises(ValueError) as error:
                data.prepare(name, tmp_path)
            path.unlink()
            for text in form.sums:
                algorithm, digits = text.split(":")
                assert len(digits) == LENGTHS[algorithm] and int(digits, 16) >= 0
                assert text in str(error.value)
            assert str(path) in str(error.value)
            assert not (tmp_path / name.split("/")[0]).exists()
