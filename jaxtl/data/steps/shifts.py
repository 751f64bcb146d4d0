"""Controlled domain shifts of images [n, height, width, channels], for datasets and splits.

Floats are taken to lie in [0, 1], like uint8 divided by 255.
"""

import zlib
from typing import TypeVar

import numpy as np

from jaxtl.data.dataset import Dataset
from jaxtl.data.splits import Splits
from jaxtl.data.steps.images import cast_like

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


def _white(images: np.ndarray) -> int:
    return 255 if images.dtype == np.uint8 else 1


def _cast(values: np.ndarray, images: np.ndarray) -> np.ndarray:
    return cast_like(np.clip(values, 0, _white(images)), images)
