"""Transforms of inputs once more, as JAX can trace them: for programs that take raw rows.

They give what `images` and `transforms` give on the host, but for the last bit of a float; a pixel
of uint8 that lies halfway between two values may become the other one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.data.steps import images
from jaxtl.data.steps.transforms import Moments


def resize(pixels: jax.Array, size: tuple[int, int]) -> jax.Array:
    """`images.resize`."""
    if pixels.shape[1:3] == tuple(size):
        return pixels
    vertical, horizontal = map(images.triangles, pixels.shape[1:3], size)
    exact = jax.lax.Precision.HIGHEST
    rows = jnp.einsum("ih,nhwc->niwc", vertical, pixels.astype(jnp.float32), precision=exact)
    resized = jnp.einsum("niwc,jw->nijc", rows, horizontal, precision=exact)
    return images.cast_like(resized, pixels)


def grayscale(pixels: jax.Array) -> jax.Array:
    """`images.grayscale`."""
    if pixels.shape[3] == 1:
        return pixels
    weights = np.array([[[[0.299, 0.587, 0.114]]]], np.float32)
    gray = (pixels.astype(jnp.float32) * weights).sum(3, keepdims=True)
    return images.cast_like(gray, pixels)


IMAGES: dict[Callable, Callable] = {
    images.resize: resize,
    images.grayscale: grayscale,
    **{function: function for function in (images.rgb, images.pad, images.center_crop)},
}
"""{a function of `images`: (images, *arguments) -> images, traceable}."""


def scale(values: jax.Array, moments: Moments | None) -> jax.Array:
    """What `transforms.scale` does to a leaf; not to float64, which JAX does not have."""
    if moments is None:
        return values
    mean, std, least, most = (np.asarray(statistic)[None] for statistic in moments)
    varies = most > least
    factor = np.where(varies, 1 / np.where(varies, std, 1), 0).astype(np.float32)
    if values.dtype != jnp.uint8 and jnp.issubdtype(values.dtype, jnp.integer):
        whole = np.rint(mean)  # float32 has not all whole numbers, but small differences
        values = (values - whole.astype(values.dtype)).astype(jnp.float32)
        return (values - (mean - whole).astype(np.float32)) * factor
    return (values - mean.astype(np.float32)) * factor
