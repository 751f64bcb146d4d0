"""A TFDS builder of USPS. Importing this module imports TFDS and registers the builder."""

import bz2
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

URL = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass/"
FILES = {"train": "usps.bz2", "test": "usps.t.bz2"}


class Usps(tfds.core.GeneratorBasedBuilder):
    """Handwritten digits of US ZIP codes: 7,291 train and 2,007 test images, uint8 [16, 16, 1].

    The LIBSVM files hold values x in [-1, 1], here floor(255 (x + 1) / 2), so ink is bright on 0,
    and labels 1..10, here the digits 0..9.

    J. Hull, "A database for handwritten text recognition research", IEEE TPAMI 1994.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Without a network, put {' and '.join(FILES.values())} of {URL} into "
        "<data_dir>/downloads/manual."
    )

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
            homepage=URL,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        local = Path(dl_manager.download_dir) / "manual"
        files = {split: local / file for split, file in FILES.items()}
        if not all(file.is_file() for file in files.values()):
            files = dl_manager.download({split: URL + file for split, file in FILES.items()})
        return {split: self._generate_examples(Path(file)) for split, file in files.items()}

    def _generate_examples(self, file: Path) -> Iterator[tuple[int, dict]]:
        with bz2.open(file, "rt") as lines:
            for number, line in enumerate(lines):
                image, label = parse(line)
                png = io.BytesIO()  # TFDS would need TensorFlow to encode an array
                PIL.Image.fromarray(image).save(png, "PNG")
                png.seek(0)
                yield number, {"image": png, "label": label}


def parse(line: str) -> tuple[np.ndarray, int]:
    """A LIBSVM line, `label index:value ...` -> (uint8 [16, 16], digit). What is absent is 0."""
    label, *pairs = line.split()
    values = np.zeros(256)
    for pair in pairs:
        index, value = pair.split(":")
        values[int(index) - 1] = float(value)
    return np.floor(255 * (values + 1) / 2).astype(np.uint8).reshape(16, 16), int(float(label)) - 1
