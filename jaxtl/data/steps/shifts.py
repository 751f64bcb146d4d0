"""Controlled domain shifts of images [n, height, width, channels], for datasets and splits.

Floats are taken to lie in [0, 1], like uint8 divided by 255.
"""

import dataclasses
import zlib
from typing import TypeVar

import numpy as np

from jaxtl.data.dataset import Dataset
from jaxtl.data.splits import Splits
from jaxtl.data.steps.images import cast_like
from jaxtl.data.table import Table

Data = TypeVar("Data", Dataset, Splits)


def rotated(data: Data, degrees: float) -> Data:
    """Turned counter-clockwise about the centre, bilinear, black where nothing comes from."""
    return data.map_images(_rotated, degrees)


def thickened(data: Data) -> Data:
    """Bright strokes one pixel thicker: the maximum over each 2x2 window."""
    return data.map_images(_thickened)


def noisy(data: Data, stddev: float) -> Data:
    """Gaussian noise (1.0 is the range from black to white), clipped to that range.

    It is drawn once, from a generator seeded by the images themselves.
    """
    return data.map_images(_noisy, stddev)


def inverted(data: Data) -> Data:
    """White for black and black for white."""
    return data.map_images(_inverted)


def permuted(data: Data, seed: int) -> Data:
    """The pixels in another order, the same for all images of a shape: a function of the seed."""
    return data.map_images(_permuted, seed)


def subsampled(data: Data, every: int = 2) -> Data:
    """Every so many pixels of every so many rows, the first among them; nothing is averaged."""
    return data.map_images(_subsampled, every)


def colored(
    data: Data,
    color_flip: float,
    *,
    label_noise: float = 0.25,
    column: str = "label",
    seed: int = 0,
) -> Data:
    """Two classes, and a colour that tells them better than the shape does: coloured MNIST.

    The classes are the two halves of those of the column. A label is flipped with probability
    `label_noise`, and the colour is the flipped label, flipped once more with probability
    `color_flip`. The grey image stands in the channel of its colour, and the other one is black:
    [n, height, width, 2]. The draws depend on the seed, `color_flip` and the labels, in order.

    Raises:
        ValueError: images have several channels or are streamed, or the column has not two classes.

    Arjovsky et al., "Invariant Risk Minimization", 2019. arXiv:1907.02893, Section 5.2: training
    environments of color_flip 0.1 and 0.2, test 0.9, on `subsampled(data)` of 14x14; 28x28 in
    Gulrajani & Lopez-Paz, 2021, arXiv:2007.01434.
    """
    for name, value in (("color_flip", color_flip), ("label_noise", label_noise)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
    return data.map(_colored, color_flip, label_noise, column, seed)


def _rotated(images: np.ndarray, degrees: float) -> np.ndarray:
    from scipy import ndimage

    turned = ndimage.rotate(
        images.astype(np.float32), degrees, axes=(1, 2), reshape=False, order=1, prefilter=False
    )
    return _cast(turned, images)


def _thickened(images: np.ndarray) -> np.ndarray:
    wide = np.maximum(images, np.pad(images, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1])
    return np.maximum(wide, np.pad(wide, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1])


def _noisy(images: np.ndarray, stddev: float) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(images)))
    noise = rng.standard_normal(images.shape, np.float32) * np.float32(stddev * _white(images))
    return _cast(images + noise, images)


def _inverted(images: np.ndarray) -> np.ndarray:
    return _white(images) - images


def _permuted(images: np.ndarray, seed: int) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(images.shape[1] * images.shape[2])
    flat = images.reshape(len(images), len(order), images.shape[3])
    return flat[:, order].reshape(images.shape)


def _subsampled(images: np.ndarray, every: int) -> np.ndarray:
    return images[:, ::every, ::every]


def _colored(table: Table, color_flip: float, label_noise: float, column: str, seed: int) -> Table:
    images, names, labels = table.inputs, table.names(column), table.labels[column]
    if not isinstance(images, np.ndarray) or images.ndim != 4 or images.shape[-1] != 1:
        raise ValueError(
            "colored needs grey images [n, height, width, 1] in memory; the inputs are "
            f"{getattr(images, 'shape', type(images).__name__)}"
        )
    if len(names) < 2:
        raise ValueError(f"colored needs two classes or more; column {column!r} has {len(names)}")
    half = len(names) // 2
    rng = np.random.default_rng([seed, zlib.crc32(repr(color_flip).encode()), zlib.crc32(labels)])
    noise, flips = rng.random((2, len(labels)))
    clean = (labels >= half).astype(np.int32)
    noisy_labels = clean ^ (noise < label_noise)
    colors = noisy_labels ^ (flips < color_flip)
    both = np.zeros((*images.shape[:3], 2), images.dtype)
    both[np.arange(len(images)), :, :, colors] = images[..., 0]
    halves = [
        " to ".join(dict.fromkeys((part[0], part[-1]))) for part in (names[:half], names[half:])
    ]
    changed = dataclasses.replace(table, inputs=both)
    return changed.with_labels(column, noisy_labels, tuple(halves), labels != -1)


def _white(images: np.ndarray) -> int:
    return 255 if images.dtype == np.uint8 else 1


def _cast(values: np.ndarray, images: np.ndarray) -> np.ndarray:
    return cast_like(np.clip(values, 0, _white(images)), images)
