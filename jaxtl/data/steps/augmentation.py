"""Random changes of images on the device: (rng, images [n, height, width, channels]) -> images.

Each example is changed on its own; the dtype stays. Pure, may be jitted and vmapped.
"""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from jaxtl.form import AT_LEAST_0, NOT_NEGATIVE, POSITIVE, SHARE, Finite, Size, checked

Positive = Annotated[float, POSITIVE]
NotNegative = Annotated[float, NOT_NEGATIVE]
Augment = Callable[[jax.Array, jax.Array], jax.Array]


@checked
def chain(*augments: Augment) -> Augment:
    """One after the other, each with a key of its own."""

    def apply(rng: jax.Array, images: jax.Array) -> jax.Array:
        for i, augment in enumerate(augments):
            images = augment(jax.random.fold_in(rng, i), images)
        return images

    return apply


def random_flip() -> Augment:
    """Left and right are exchanged with probability 1/2."""

    def apply(rng: jax.Array, images: jax.Array) -> jax.Array:
        flip = jax.random.bernoulli(rng, shape=(len(images), 1, 1, 1))
        return jnp.where(flip, images[:, :, ::-1], images)

    return apply


@checked
def random_crop(
    padding: Annotated[int, AT_LEAST_0] = 0, size: tuple[Size, Size] | None = None
) -> Augment:
    """A random window of the image with a black frame.

    A shift by one of few offsets is a chain of selects per axis: gathers are slow on a CPU.

    Args:
        padding: width of the frame in pixels.
        size: (height, width) of the window; the image's own if None.
    """

    def apply(rng: jax.Array, images: jax.Array) -> jax.Array:
        for i, length in enumerate(size or images.shape[1:3]):
            images = _window(jax.random.fold_in(rng, i), images, i + 1, length)
        return images

    def _window(rng: jax.Array, images: jax.Array, axis: int, length: int) -> jax.Array:
        frame = [(padding, padding) if i == axis else (0, 0) for i in range(4)]
        padded = jnp.pad(images, frame)
        count = padded.shape[axis] - length + 1
        if count < 1:
            raise ValueError(f"random_crop: a window of {length} pixels from {padded.shape[axis]}")
        offsets = jax.random.randint(rng, (len(images), 1, 1, 1), 0, count)
        window = jax.lax.slice_in_dim(padded, 0, length, axis=axis)
        for offset in range(1, count):
            moved = jax.lax.slice_in_dim(padded, offset, offset + length, axis=axis)
            window = jnp.where(offsets == offset, moved, window)
        return window

    return apply


@checked
def gaussian_noise(stddev: NotNegative) -> Augment:
    """Independent noise on each value of float images; not clipped."""

    def apply(rng: jax.Array, images: jax.Array) -> jax.Array:
        return images + stddev * jax.random.normal(rng, images.shape, images.dtype)

    return apply


@checked
def random_affine(
    *,
    scale: tuple[Positive, Positive] = (1.0, 1.0),
    degrees: NotNegative = 0.0,
    shear: NotNegative = 0.0,
    translate: NotNegative = 0.0,
) -> Augment:
    """Each image turned, sheared, stretched and moved about its centre; bilinear, black outside.

    Written as two small matrix products an image, of weights that are 0 except at the neighbours:
    gathers are slow on a CPU. They cost (height * width)^2 (1 + channels) an image, so that it
    suits small images.

    Args:
        scale: range of the factors of the height and of the width, drawn independently; 2 makes
            what is shown twice as large.
        degrees: the angle is uniform in [-degrees, degrees].
        shear: a row moves by a factor, uniform in [-shear, shear], of its distance from the middle.
        translate: largest shift, as a share of the height or width.
    """

    def apply(rng: jax.Array, images: jax.Array) -> jax.Array:
        n, height, width, _ = images.shape
        keys = jax.random.split(rng, 4)

        def draw(key: jax.Array, low: float, high: float) -> list[jax.Array]:
            """Two numbers an image, [n, 1] each."""
            return jnp.split(jax.random.uniform(key, (n, 2), minval=low, maxval=high), 2, 1)

        (zoom_y, zoom_x), (shift_y, shift_x) = draw(keys[0], *scale), draw(keys[1], -1, 1)
        angle = jnp.deg2rad(degrees) * draw(keys[2], -1, 1)[0]
        slant = shear * draw(keys[3], -1, 1)[0]
        middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
        y, x = (axis.reshape(1, -1) for axis in jnp.mgrid[:height, :width])
        # Where each new pixel comes from: the inverse of turn, then shear, then stretch, then move.
        y = (y - middle_y - translate * height * shift_y) / zoom_y
        x = (x - middle_x - translate * width * shift_x) / zoom_x - slant * y
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        y, x = cos * y - sin * x + middle_y, sin * y + cos * x + middle_x

        def weights(coordinates: jax.Array, length: int) -> jax.Array:
            distances = jnp.abs(coordinates[..., None] - jnp.arange(length).reshape(1, 1, -1))
            return jnp.maximum(0, 1 - distances).astype(images.dtype)

        rows = jnp.einsum("nph,nhwc->npwc", weights(y, height), images)
        moved = jnp.einsum("npw,npwc->npc", weights(x, width), rows)
        return moved.reshape(images.shape)

    return apply


@checked
def random_intensity(
    *,
    flip: Annotated[float, SHARE] = 0.5,
    scale: tuple[Finite, Finite] = (0.25, 1.5),
    shift: tuple[Finite, Finite] = (-0.5, 0.5),
) -> Augment:
    """Each channel of each image inverted by chance, then scaled about its mean, then shifted.

    Images are floats in [0, 1]; the result may leave that range.

    Args:
        flip: probability of x -> 1 - x.
        scale: range of the factor.
        shift: range of what is added.

    French, Mackiewicz & Fisher, "Self-ensembling for visual domain adaptation", ICLR 2018.
    arXiv:1706.05208, Section 4.1, with these ranges; there a grey image has one draw.
    """

    def apply(rng: jax.Array, images: jax.Array) -> jax.Array:
        shape = (len(images), 1, 1, images.shape[3])
        keys = jax.random.split(rng, 3)
        factor = jax.random.uniform(keys[1], shape, images.dtype, *scale)
        offset = jax.random.uniform(keys[2], shape, images.dtype, *shift)
        images = jnp.where(jax.random.bernoulli(keys[0], flip, shape), 1 - images, images)
        mean = images.mean((1, 2), keepdims=True)
        return (images - mean) * factor + mean + offset

    return apply
