"""Random changes of images on the device: (rng, images [n, height, width, channels]) -> images.

Each example is changed on its own; dtype and shape stay. Pure, may be jitted and vmapped.
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


def random_crop(padding: int) -> Augment:
    """A window of the image's own size out of the image with a black frame of `padding` pixels.

    A shift by one of few offsets is a chain of selects per axis: gathers are slow on a CPU.
    """

    def apply(rng: jax.Array, images: jax.Array) -> jax.Array:
        shape = (2, len(images), 1, 1, 1)
        vertical, horizontal = jax.random.randint(rng, shape, 0, 2 * padding + 1)
        return _shift(_shift(images, vertical, 1), horizontal, 2)

    def _shift(images: jax.Array, offsets: jax.Array, axis: int) -> jax.Array:
        frame = [(padding, padding) if i == axis else (0, 0) for i in range(4)]
        padded, size = jnp.pad(images, frame), images.shape[axis]
        shifted = jnp.zeros_like(images)
        for offset in range(2 * padding + 1):
            window = jax.lax.slice_in_dim(padded, offset, offset + size, axis=axis)
            shifted = jnp.where(offsets == offset, window, shifted)
        return shifted

    return apply


def gaussian_noise(stddev: float) -> Augment:
    """Independent noise on each value of float images; not clipped."""

    def apply(rng: jax.Array, images: jax.Array) -> jax.Array:
        return images + stddev * jax.random.normal(rng, images.shape, images.dtype)

    return apply
