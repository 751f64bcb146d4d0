import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtl import data

IMAGES = jax.random.uniform(jax.random.key(0), (64, 5, 6, 2), minval=0.5)


def test_flip_gives_each_image_or_its_mirror():
    flipped = np.asarray(data.random_flip()(jax.random.key(1), IMAGES))
    mirrored = np.asarray(IMAGES)[:, :, ::-1]
    kinds = [np.array_equal(f, m) for f, m in zip(flipped, mirrored, strict=True)]
    for image, out, kind in zip(np.asarray(IMAGES), flipped, kinds, strict=True):
        assert kind or np.array_equal(out, image)
    assert 16 < sum(kinds) < 48


def test_crop_gives_every_window_of_the_padded_image():
    padding = 2
    crops = np.asarray(data.random_crop(padding)(jax.random.key(2), IMAGES))
    padded = np.pad(IMAGES, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    offsets = []
    for image, crop in zip(padded, crops, strict=True):
        hits = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if np.array_equal(image[i : i + 5, j : j + 6], crop)
        ]
        assert len(hits) == 1
        offsets += hits
    assert {i for i, _ in offsets} == {j for _, j in offsets} == set(range(5))


def test_crop_needs_no_gather():
    text = jax.jit(data.random_crop(4)).lower(jax.random.key(0), IMAGES).as_text()
    assert "gather" not in text and "dynamic_slice" not in text


def test_noise_has_its_deviation():
    noise = data.gaussian_noise(0.3)(jax.random.key(3), IMAGES) - IMAGES
    np.testing.assert_allclose(noise.std(), 0.3, rtol=0.05)


def test_chain_uses_a_key_of_its_own_for_each():
    rng = jax.random.key(4)
    one, two = jax.random.fold_in(rng, 0), jax.random.fold_in(rng, 1)
    noise, flip = data.gaussian_noise(1.0), data.random_flip()
    expected = flip(two, noise(one, IMAGES))
    np.testing.assert_array_equal(data.chain(noise, flip)(rng, IMAGES), expected)


@pytest.mark.parametrize(
    "augment", [data.random_flip(), data.random_crop(1), data.gaussian_noise(0.1)]
)
def test_jit_and_vmap_keep_shape_dtype_and_bits(augment):
    rngs, stacked = jax.random.split(jax.random.key(5), 3), jnp.stack([IMAGES] * 3)
    mapped = jax.jit(jax.vmap(augment))(rngs, stacked)
    assert mapped.shape == stacked.shape and mapped.dtype == stacked.dtype
    for rng, out in zip(rngs, mapped, strict=True):
        np.testing.assert_allclose(out, augment(rng, IMAGES), rtol=1e-6)
