"""Image arrays on the host: [n, height, width, channels] in, the same layout and dtype out.

What takes its functions from the namespace of its array can be traced by JAX too, see `traceable`.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from jaxtl.form import Limit, Size

CHUNK = 4096  # images converted to float32 at a time, fewer where they are large
NUMBERS = 2**28  # in float32 at a time

ImageSize = Annotated[
    tuple[Size, Size], Limit("(height, width), whole numbers of at least 1", lambda size: True)
]


def resize(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, antialiased when shrinking: the filter of Pillow's `Image.resize(BILINEAR)`.

    Args:
        images: [n, height, width, channels].
        size: (height, width) wanted.
    """
    if images.shape[1:3] == tuple(size):
        return images
    vertical, horizontal = (
        triangles(*sizes) for sizes in zip(images.shape[1:3], size, strict=True)
    )
    resized = np.empty((len(images), *size, images.shape[3]), images.dtype)
    chunk = min(CHUNK, max(1, NUMBERS // max(1, math.prod(images.shape[1:]))))
    for start in range(0, len(images), chunk):
        rows = slice(start, start + chunk)
        pixels = images[rows].astype(np.float32)
        pixels = np.einsum("ih,nhwc,jw->nijc", vertical, pixels, horizontal, optimize=True)
        resized[rows] = cast_like(pixels, images)
    return resized


def triangles(old: int, new: int) -> np.ndarray:
    """[new, old] float32: weights of the old pixels in each new one; rows sum to one."""
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale
    distances = np.abs(np.arange(old) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distances)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def cast_like(values: Any, images: Any) -> Any:
    """`values` in the dtype of `images`, rounded and clipped if that is uint8."""
    if images.dtype == np.uint8:
        return values.__array_namespace__().rint(values).clip(0, 255).astype(np.uint8)
    return values.astype(images.dtype)


def grayscale(images: np.ndarray) -> np.ndarray:
    """One channel: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601); grey images are unchanged."""
    if images.shape[3] == 1:
        return images
    _expect_channels(images, 3)
    gray = np.empty((*images.shape[:3], 1), images.dtype)
    weights = np.array([[0.299], [0.587], [0.114]], np.float32)
    for start in range(0, len(images), CHUNK):
        gray[start : start + CHUNK] = cast_like(images[start : start + CHUNK] @ weights, images)
    return gray


def rgb(images: np.ndarray) -> np.ndarray:
    """Three channels: a grey one is repeated; colour images are unchanged."""
    if images.shape[3] == 3:
        return images
    _expect_channels(images, 1)
    return images.__array_namespace__().repeat(images, 3, axis=3)


def _expect_channels(images: np.ndarray, channels: int) -> None:
    if images.shape[3] != channels:
        raise ValueError(f"expected images with 1 or 3 channels, got {images.shape[3]}")


def pad(images: np.ndarray, pixels: int) -> np.ndarray:
    """A black frame of `pixels` on each side."""
    return images.__array_namespace__().pad(
        images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    )


def center_crop(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle (height, width) of each image; half a pixel too far up and left if it is odd."""
    height, width = size
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    if top < 0 or left < 0:
        raise ValueError(f"cannot crop {height}x{width} out of {images.shape[1]}x{images.shape[2]}")
    return images[:, top : top + height, left : left + width]


def stack(arrays: Sequence[np.ndarray], what: str) -> np.ndarray:
    """`np.stack`; ValueError that names the sizes if the arrays differ in shape."""
    one_shape({array.shape for array in arrays}, what)
    return np.stack(arrays)


def one_shape(shapes: set[tuple[int, ...]], what: str) -> tuple[int, ...]:
    """The only one of the shapes; ValueError that names some of them if there are several."""
    if len(shapes) > 1:
        shown = ", ".join("x".join(map(str, shape)) for shape in sorted(shapes)[:3])
        raise ValueError(
            f"{what}: arrays of different sizes ({shown}); images can be resized with "
            "size=(height, width)"
        )
    return next(iter(shapes), ())
