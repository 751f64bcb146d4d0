import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

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


@pytest.mark.parametrize("degrees", [0.0, 90.0])
def test_affine_without_randomness_is_the_image(degrees):
    still = data.random_affine(degrees=0.0)(jax.random.key(3), IMAGES)
    np.testing.assert_allclose(still, IMAGES, rtol=1e-5)
    turned = data.random_affine(degrees=degrees)(jax.random.key(3), IMAGES)
    assert np.array_equal(still, turned) == (degrees == 0)


def test_affine_scales_as_scipy_does():
    both = data.random_affine(scale=(1.7, 1.7))(jax.random.key(4), IMAGES[:2])
    for image, found in zip(np.asarray(IMAGES), np.asarray(both), strict=False):
        matrix, centre = np.eye(2) / 1.7, np.array([2.0, 2.5])
        for channel in range(2):
            expected = ndimage.affine_transform(
                image[..., channel], matrix, centre - matrix @ centre, order=1
            )
            np.testing.assert_allclose(found[..., channel], expected, atol=1e-5)


@pytest.mark.parametrize("what", ["degrees", "shear"])
def test_affine_turns_and_shears_as_scipy_does(what, monkeypatch):
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, **range_: jnp.ones(shape))
    amount = {"degrees": 30.0, "shear": 0.4}[what]
    (found,) = np.asarray(data.random_affine(**{what: amount})(jax.random.key(0), IMAGES[:1]))
    t = np.deg2rad(30)
    turn = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    matrix = {"degrees": turn, "shear": np.array([[1, 0], [-0.4, 1]])}[what]
    centre = np.array([2.0, 2.5])
    for channel in range(2):
        expected = ndimage.affine_transform(
            np.asarray(IMAGES[0, ..., channel]),
            matrix,
            centre - matrix @ centre,
            order=1,
            mode="grid-constant",
        )
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-5)


def test_affine_moves_by_at_most_a_share_of_the_size():
    dot = jnp.zeros((200, 9, 9, 1)).at[:, 4, 4].set(1.0)
    moved = np.asarray(data.random_affine(translate=0.25)(jax.random.key(5), dot))[..., 0]
    rows = (moved.sum(2) * np.arange(9)).sum(1) - 4
    assert np.abs(rows).max() <= 2.25 and np.abs(rows).max() > 2
    np.testing.assert_allclose(moved.sum((1, 2)), 1.0, rtol=1e-5)


def test_intensity_is_a_draw_for_each_channel_of_each_image():
    found = data.random_intensity()(jax.random.key(6), IMAGES)
    flipped = set()
    for image, new in zip(np.asarray(IMAGES), np.asarray(found), strict=True):
        for channel in range(2):
            old = image[..., channel].ravel()
            slope, level = np.polyfit(old, new[..., channel].ravel(), 1)
            np.testing.assert_allclose(new[..., channel].ravel(), slope * old + level, atol=1e-4)
            assert 0.25 <= abs(slope) <= 1.5
            mean = old.mean() if slope > 0 else 1 - old.mean()
            assert -0.5 <= new[..., channel].mean() - mean <= 0.5
            flipped.add(bool(slope < 0))
    assert flipped == {True, False}


def test_intensity_without_ranges_is_the_image_or_its_negative():
    same = {"scale": (1.0, 1.0), "shift": (0.0, 0.0)}
    still = data.random_intensity(flip=0.0, **same)(jax.random.key(7), IMAGES)
    np.testing.assert_allclose(still, IMAGES, rtol=1e-6)
    negative = data.random_intensity(flip=1.0, **same)(jax.random.key(7), IMAGES)
    np.testing.assert_allclose(negative, 1 - IMAGES, rtol=1e-5, atol=1e-6)
