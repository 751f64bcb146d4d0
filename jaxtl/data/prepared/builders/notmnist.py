"""A TFDS builder of notMNIST."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from jaxtl.data.prepared.builders.archives import members
from jaxtl.data.prepared.builders.building import (
    Examples,
    FromOriginals,
    checked_image,
    per_class,
)
from jaxtl.data.prepared.builders.originals import Original

logger = logging.getLogger(__name__)
LETTERS = "ABCDEFGHIJ"
PAGE = "https://yaroslavvb.blogspot.com/2011/09/notmnist-dataset.html"
FOLDER = "https://commondatastorage.googleapis.com/books1000/"
MIRROR = "http://yaroslavvb.com/upload/notMNIST/"
UNREADABLE = frozenset(
    {
        "notMNIST_small/A/RGVtb2NyYXRpY2FCb2xkT2xkc3R5bGUgQm9sZC50dGY=.png",
        "notMNIST_small/F/Q3Jvc3NvdmVyIEJvbGRPYmxpcXVlLnR0Zg==.png",
        "notMNIST_large/A/RnJlaWdodERpc3BCb29rSXRhbGljLnR0Zg==.png",
        "notMNIST_large/A/SG90IE11c3RhcmQgQlROIFBvc3Rlci50dGY=.png",
        "notMNIST_large/A/Um9tYW5hIEJvbGQucGZi.png",
        "notMNIST_large/B/TmlraXNFRi1TZW1pQm9sZEl0YWxpYy5vdGY=.png",
        "notMNIST_large/D/VHJhbnNpdCBCb2xkLnR0Zg==.png",
    }
)
"""Files that are empty or no images in the archives as published; all others can be read."""


def _original(size: str, length: int, sha1: str) -> Original:
    file = f"notMNIST_{size}.tar.gz"
    folders = (f"notMNIST_{size}/A", f"notMNIST_{size}/J")
    sums = (f"sha1:{sha1}",)
    return Original(file, PAGE, FOLDER + file, length, sums, folders, (MIRROR + file,))


SMALL = {"test": _original("small", 8458043, "23db76a71f83982f18a51b855b5746bd52e01f1c")}
LARGE = {"train": _original("large", 247336696, "342702831f08438e1fc830ca0f016ec7bc5ab2e8")}
TEST = per_class(LETTERS, [1872, 1873, 1873, 1873, 1873, 1872, 1872, 1872, 1872, 1872])
TRAIN = per_class(LETTERS, [52909, 52911, 52912, 52911, 52912, 52912, 52912, 52912, 52912, 52911])


class Notmnist(FromOriginals):
    """Glyphs of the letters A to J in many fonts, uint8 [28, 28, 1], as published.

    `notmnist` and `notmnist/small` hold the split test: 18,724 images, cleaned by hand.
    `notmnist/large` adds the split train: 529,114 images that nobody cleaned. The two and five
    files that cannot be read, which everybody leaves out, are left out. Sums: those of a public
    copy; sizes: those of the course of Udacity that uses the files.

    Y. Bulatov, notMNIST, 2011.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="small", description="The split test, cleaned by hand."),
        tfds.core.BuilderConfig(name="large", description="The splits train and test."),
    ]
    ORIGINALS: ClassVar = {"small": SMALL, "large": LARGE | SMALL}
    COUNTS: ClassVar = {"small": {"test": TEST}, "large": {"train": TRAIN, "test": TEST}}

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list(LETTERS)),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Glyphs of the letters A to J in many fonts, 28x28 grey.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=PAGE,
        )

    def examples(self, paths: Mapping[str, Path]) -> dict[str, Examples]:
        folders = {"train": "notMNIST_large", "test": "notMNIST_small"}
        return {split: glyphs(path, folders[split]) for split, path in paths.items()}


def glyphs(path: Path, folder: str) -> Iterator[tuple[str, dict]]:
    """The examples of one archive, by letter and file name."""
    left_out = []
    for match, content in members(path, rf"{folder}/([A-Z])/([^/]+\.png)"):
        label, file = match.groups()
        if f"{folder}/{label}/{file}" in UNREADABLE:
            left_out.append(f"{label}/{file}")
            continue
        image = checked_image(content, f"{match[0]} in {path}", (28, 28, 1))
        yield f"{label}/{file}", {"image": image, "label": label}
    if left_out:
        logger.info("%s: left out as unreadable, as known: %s", path, ", ".join(left_out))
