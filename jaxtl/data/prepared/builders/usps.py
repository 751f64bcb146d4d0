"""A TFDS builder of USPS."""

import bz2
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from jaxtl.data.prepared.builders.building import Examples, FromOriginals, as_png, per_class
from jaxtl.data.prepared.builders.originals import Original, Refused

PAGE = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html#usps"
FOLDER = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass/"


class Usps(FromOriginals):
    """Handwritten digits of US ZIP codes: 7,291 train and 2,007 test images, uint8 [16, 16, 1].

    The LIBSVM files hold values x in [-1, 1], here floor(255 (x + 1) / 2), so ink is bright on 0,
    and labels 1..10, here the digits 0..9. Sums: those of torchvision.

    J. Hull, "A database for handwritten text recognition research", IEEE TPAMI 1994.
    """

    VERSION = tfds.core.Version("1.0.0")
    ORIGINALS: ClassVar = {
        "train": Original(
            "usps.bz2", PAGE, FOLDER + "usps.bz2", sums=("md5:ec16c51db3855ca6c91edd34d0e9b197",)
        ),
        "test": Original(
            "usps.t.bz2",
            PAGE,
            FOLDER + "usps.t.bz2",
            sums=("md5:8ea070ee2aca1ac39742fdd1ef5ed118",),
        ),
    }
    COUNTS: ClassVar = {
        "train": per_class("0123456789", [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644]),
        "test": per_class("0123456789", [359, 264, 198, 166, 200, 160, 170, 147, 166, 177]),
    }

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(16, 16, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of US ZIP codes, 16x16 grey.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=PAGE,
        )

    def examples(self, paths: Mapping[str, Path]) -> dict[str, Examples]:
        return {split: digits(path) for split, path in paths.items()}


def digits(path: Path) -> Iterator[tuple[int, dict]]:
    """The examples of a LIBSVM file, by the number of their line."""
    number = 0
    try:
        with bz2.open(path, "rt") as lines:
            for number, line in enumerate(lines):
                image, label = parse(line)
                yield number, {"image": as_png(image), "label": label}
    except (ValueError, IndexError, EOFError, OSError) as error:
        raise Refused(f"{path} cannot be read near line {number + 1}: {error}") from error


def parse(line: str) -> tuple[np.ndarray, int]:
    """A LIBSVM line, `label index:value ...` -> (uint8 [16, 16], digit). What is absent is 0."""
    label, *pairs = line.split()
    values = np.zeros(256)
    for pair in pairs:
        index, value = pair.split(":")
        values[int(index) - 1] = float(value)
    return np.floor(255 * (values + 1) / 2).astype(np.uint8).reshape(16, 16), int(float(label)) - 1
