"""Random changes of images on the device: (rng, images [n, height, width, channels]) -> images.

Each example is changed on its own; the dtype stays. Pure, may be jitted and vmapped.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Augment = Callable[[jax.Array, jax.Array], jax.Array]


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


def random_crop(padding: int = 0, size: tuple[int, int] | None = None) -> Augment:
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


def gaussian_noise(stddev: float) -> Augment:
    """Independent noise on each value of float images; not clipped."""

    def apply(rng: jax.Array, images: jax.Array) -> jax.Array:
        return images + stddev * jax.random.normal(rng, images.shape, images.dtype)

    return apply
