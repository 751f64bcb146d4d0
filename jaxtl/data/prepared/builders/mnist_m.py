"""A TFDS builder of MNIST-M: the published images, or others after the same recipe."""

import collections
import gzip
import hashlib
import io
import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from jaxtl.data.prepared.builders.archives import LIMIT, content, members
from jaxtl.data.prepared.builders.building import (
    Examples,
    FromOriginals,
    as_png,
    checked_image,
    per_class,
)
from jaxtl.data.prepared.builders.originals import Original, Refused
from jaxtl.data.prepared.tfds_folders import prepared_folder
from jaxtl.data.prepared.tfds_source import tfds as prepared
from jaxtl.data.sources import image_files

logger = logging.getLogger(__name__)
PAGE = "http://yaroslav.ganin.net/"
DIGITS = "0123456789"
SIDE, PADDING, PHOTOGRAPHS = 32, 2, 200
MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
BSDS = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html"


def _mnist(file: str, size: int, sha256: str) -> Original:
    page = "https://github.com/cvdfoundation/mnist"
    return Original(file, page, MNIST + file, size, (f"sha256:{sha256}",))


IMAGES = {
    "images": Original(
        "mnist_m.tar.gz",
        PAGE,
        "https://cornell.box.com/shared/static/jado7quprg6hzzdubvwzh9umr75damwi",
        sums=("md5:859df31c91afe82e80e5012ba928f279",),
        folders=("mnist_m_train", "mnist_m_test"),
    )
}
PARTS = {
    "photographs": Original(
        "BSR_bsds500.tgz",
        BSDS,
        "https://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz",
        70763455,
        (
            "md5:0b17383ff0b21fe43d2f28e624203169",
            "sha256:97e49d31764f3912f0c4122707d53062ac9e783ba0f095e447a4d53c1a41af8e",
        ),
        folders=("BSDS500/data/images/train",),
    ),
    "train_images": _mnist(
        "train-images-idx3-ubyte.gz",
        9912422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "train_labels": _mnist(
        "train-labels-idx1-ubyte.gz",
        28881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "test_images": _mnist(
        "t10k-images-idx3-ubyte.gz",
        1648877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "test_labels": _mnist(
        "t10k-labels-idx1-ubyte.gz",
        4542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}


class MnistM(FromOriginals):
    """MNIST digits on pieces of photographs of BSDS500, uint8 [32, 32, 3].

    `mnist_m` and `mnist_m/original` are the published images: train 59,001 and test 9,001.
    `mnist_m/recipe` is made here from MNIST and the 200 train photographs of BSDS500: train
    60,000 and test 10,000. An image is |patch - 255 (digit > 0)|, the digit padded from 28x28 to
    32x32; the patch is drawn from the bits of the digit, so that everybody makes the same images.
    They are not the published ones: do not compare results on the one with results on the other.

    Sums: pytorch-adapt and dm_nevis (images), TFDS (MNIST), two public copies (BSDS500).

    Y. Ganin et al., "Domain-adversarial training of neural networks", JMLR 2016; P. Arbelaez et
    al., "Contour detection and hierarchical image segmentation", IEEE TPAMI 2011.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="original", description="The images that were published."),
        tfds.core.BuilderConfig(name="recipe", description="Images made by the same recipe."),
    ]
    ORIGINALS: ClassVar = {"original": IMAGES, "recipe": PARTS}
    COUNTS: ClassVar = {
        "original": {
            "train": 59001,
            "test": per_class(DIGITS, [878, 1016, 933, 908, 890, 807, 856, 914, 880, 919]),
        },
        "recipe": {
            "train": per_class(
                DIGITS, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
            ),
            "test": per_class(DIGITS, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
        },
    }

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Digits on pieces of photographs, 32x32 colour.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=PAGE,
        )

    @property
    def originals(self) -> Mapping[str, Original]:
        """MNIST is not asked for where it is prepared."""
        if self.builder_config.name == "recipe" and self._prepared_mnist():
            return {"photographs": super().originals["photographs"]}
        return super().originals

    def _prepared_mnist(self) -> Path | None:
        try:
            return prepared_folder("mnist", str(self.data_dir_root))
        except ValueError:  # not there, or only TensorFlow reads it
            return None

    def examples(self, paths: Mapping[str, Path]) -> dict[str, Examples]:
        splits = ("train", "test")
        if self.builder_config.name == "original":
            return {split: published(paths["images"], split) for split in splits}
        photographs = _photographs(paths["photographs"])
        if folder := self._prepared_mnist():
            logger.info("digits: %s", folder)
        return {split: blend(self._mnist(split, paths), photographs) for split in splits}

    def _mnist(self, split: str, paths: Mapping[str, Path]) -> Iterable[tuple[np.ndarray, int]]:
        """Digits, uint8 [28, 28], and their labels."""
        if f"{split}_images" in paths:
            images = _idx(paths[f"{split}_images"], 3)
            return zip(images, _idx(paths[f"{split}_labels"], 1), strict=True)
        table = prepared("mnist", split, data_dir=self.data_dir_root).table()
        return zip(table.inputs[..., 0], table.labels["label"], strict=True)


def published(path: Path, split: str) -> Iterator[tuple[str, dict]]:
    """The published examples of a split, by file name."""
    file = f"mnist_m_{split}_labels.txt"
    try:
        lines = [line.split() for line in content(path, file).decode().splitlines()]
        labels = {name: int(label) for name, label in lines}
    except ValueError as error:
        raise Refused(f"{file} in {path} is no list of names and labels: {error}") from error
    without_label = 0
    for match, data in members(path, rf"mnist_m_{split}/([^/]+\.png)"):
        if match[1] not in labels:
            without_label += 1
            continue
        image = checked_image(data, f"{match[0]} in {path}", (SIDE, SIDE, 3))
        yield match[1], {"image": image, "label": labels[match[1]]}
    if without_label:
        logger.info("%s: %s images without a label left out", path, f"{without_label:,}")


def blend(
    digits: Iterable[tuple[np.ndarray, int]], photographs: list[np.ndarray]
) -> Iterator[tuple[str, dict]]:
    """Digits on patches of photographs, by the sum of the digit.

    The order of the digits does not count: MNIST as TFDS prepares it has another one than MNIST
    as published.
    """
    copies: collections.Counter = collections.Counter()
    for digit, label in digits:
        key = hashlib.sha256(np.ascontiguousarray(digit)).hexdigest()
        copies[key] += 1
        key = f"{key}-{copies[key]}"
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]))
        photograph = photographs[rng.integers(len(photographs))]
        top, left = (rng.integers(length - SIDE + 1) for length in photograph.shape[:2])
        patch = photograph[top : top + SIDE, left : left + SIDE].astype(np.int16)
        ink = 255 * (np.pad(digit, PADDING) > 0)[:, :, None]
        yield key, {"image": as_png(abs(patch - ink).astype(np.uint8)), "label": int(label)}


def _photographs(path: Path) -> list[np.ndarray]:
    """The train photographs of BSDS500, uint8 [height, width, 3], by name."""
    found: dict[str, Any] = {}
    for match, data in members(path, r"BSDS500/data/images/train/([^/]+)\.jpg"):
        try:
            found[match[1]] = image_files.decode(io.BytesIO(data), 3)
        except ValueError as error:
            raise Refused(f"{match[0]} in {path}: {error}") from error
    if len(found) != PHOTOGRAPHS:
        raise Refused(f"{path} holds {len(found)} train photographs, expected {PHOTOGRAPHS}")
    return [found[name] for name in sorted(found)]


def _idx(path: Path, rank: int) -> np.ndarray:
    """An array of bytes in the format of MNIST, compressed."""
    try:
        with gzip.open(path) as file:
            data = file.read(LIMIT)
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(f"{path} cannot be read: {error}") from error
    shape = np.frombuffer(data, ">u4", rank, 4) if len(data) >= 4 + 4 * rank else ()
    if data[:4] != bytes([0, 0, 8, rank]) or len(data) != 4 + 4 * rank + np.prod(shape):
        raise Refused(f"{path} is no array of bytes with {rank} axes in the format of MNIST")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)
