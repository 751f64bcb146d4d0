"""A TFDS builder of the SURF features of Office-Caltech10."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.io
import tensorflow_datasets as tfds

from jaxtl.data.prepared.builders.building import Examples, FromOriginals, per_class
from jaxtl.data.prepared.builders.originals import Original, Refused

CLASSES = (
    *("back_pack", "bike", "calculator", "headphones", "keyboard", "laptop_computer"),
    *("monitor", "mouse", "mug", "projector"),
)
WORDS = 800
PAGE = "https://github.com/jindongwang/transferlearning/blob/master/data/dataset.md"
COPY = (
    "https://raw.githubusercontent.com/jindongwang/transferlearning/"
    "73cb050b7e8b969b9d0ebb04a9377aa033043eb2/code/BDA/data/"
)


def _original(file: str) -> Original:
    return Original(file, PAGE, COPY + file)


class OfficeCaltech10Surf(FromOriginals):
    """Ten classes of objects in four domains as histograms of 800 visual words, counts in uint8.

    amazon 958, caltech10 1,123, dslr 157 and webcam 295 examples; a domain is a split. The files
    are MATLAB's, with `fts` [n, 800] and `labels` 1..10. No sums are published. The usual first
    step is to divide each row by its sum, then to standardize the columns of each domain.

    B. Gong, Y. Shi, F. Sha, K. Grauman, "Geodesic flow kernel for unsupervised domain adaptation",
    CVPR 2012. For research.
    """

    VERSION = tfds.core.Version("1.0.0")
    ORIGINALS: ClassVar = {
        "amazon": _original("amazon_SURF_L10.mat"),
        "caltech10": _original("Caltech10_SURF_L10.mat"),
        "dslr": _original("dslr_SURF_L10.mat"),
        "webcam": _original("webcam_SURF_L10.mat"),
    }
    COUNTS: ClassVar = {
        "amazon": per_class(CLASSES, [92, 82, 94, 99, 100, 100, 99, 100, 94, 98]),
        "caltech10": per_class(CLASSES, [151, 110, 100, 138, 85, 128, 133, 94, 87, 97]),
        "dslr": per_class(CLASSES, [12, 21, 12, 13, 10, 24, 22, 12, 8, 23]),
        "webcam": per_class(CLASSES, [29, 21, 31, 27, 27, 30, 43, 30, 27, 30]),
    }

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "features": tfds.features.Tensor(shape=(WORDS,), dtype=np.uint8),
            "label": tfds.features.ClassLabel(names=list(CLASSES)),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Histograms of visual words of ten kinds of objects in four domains.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("features", "label"),
            homepage=PAGE,
        )

    def examples(self, paths: Mapping[str, Path]) -> dict[str, Examples]:
        return {
            domain: histograms(path, sum(self.counts[domain].values()))
            for domain, path in paths.items()
        }


def histograms(path: Path, count: int) -> Iterator[tuple[int, dict]]:
    """The examples of a domain, by the number of their row.

    Args:
        count: how many there should be, for messages.

    Raises:
        Refused: the file is not MATLAB's, or holds something else.
    """
    try:
        arrays = scipy.io.loadmat(path, variable_names=("fts", "labels"))
    except Exception as error:  # a damaged file makes SciPy raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Refused(
            f"{path} cannot be read as a file of MATLAB: {reason}. No sum of it is published; it "
            f"should hold {count:,} examples"
        ) from error
    if missing := [name for name in ("fts", "labels") if name not in arrays]:
        raise Refused(f"{path} holds no {' and no '.join(missing)}")
    counts = _whole(path, "fts", arrays["fts"], 0, 255)
    labels = _whole(path, "labels", arrays["labels"], 1, len(CLASSES)).reshape(-1)
    if counts.shape != (len(labels), WORDS):
        raise Refused(
            f"{path}: fts has shape {list(counts.shape)}, expected {[len(labels), WORDS]} for "
            f"{len(labels)} labels"
        )
    for row, (features, label) in enumerate(zip(counts, labels, strict=True)):
        yield row, {"features": features, "label": int(label) - 1}


def _whole(path: Path, name: str, values: Any, low: int, high: int) -> np.ndarray:
    """Numbers as uint8; Refused where they are not whole or not between these."""
    numeric = isinstance(values, np.ndarray) and values.dtype.kind in "iuf"
    if not numeric or not np.isin(values, np.arange(low, high + 1)).all():
        raise Refused(f"{path}: {name} must be whole numbers from {low} to {high}")
    return values.astype(np.uint8)
