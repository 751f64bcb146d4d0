import numpy as np
import PIL.Image
import pytest

from jaxtl.data.steps import images


@pytest.mark.parametrize("size", [(16, 16), (7, 20), (40, 33), (28, 30)])
def test_resize_agrees_with_pillow(size):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 30, 3), np.uint8)
    ours = images.resize(pixels, size)
    for image, resized in zip(pixels, ours, strict=True):
        theirs = PIL.Image.fromarray(image).resize(size[::-1], PIL.Image.Resampling.BILINEAR)
        gap = np.abs(resized.astype(int) - np.asarray(theirs))
        assert gap.max() <= 1  # Pillow rounds to bytes between its two passes


def test_resize_keeps_constants_and_floats():
    pixels = np.full((2, 5, 5, 1), 0.3, np.float32)
    np.testing.assert_allclose(images.resize(pixels, (3, 8)), 0.3, rtol=1e-6)
    assert images.resize(pixels, (5, 5)) is pixels


def test_halving_averages_with_triangle_weights():
    row = np.array([0, 0, 8, 0, 0, 0, 0, 0], np.float32).reshape(1, 1, 8, 1)
    # output centres 1, 3, 5, 7; weights 1 - |x - c| / 2 at 0.5, 1.5, ..., over their sum
    expected = [8 * 0.25 / 1.75, 8 * 0.75 / 2, 0, 0]
    np.testing.assert_allclose(images.resize(row, (1, 4)).ravel(), expected, rtol=1e-6)


def test_grayscale_agrees_with_pillow_and_rgb_repeats():
    pixels = np.random.default_rng(1).integers(0, 256, (4, 5, 6, 3), np.uint8)
    gray = images.grayscale(pixels)
    theirs = np.stack([np.asarray(PIL.Image.fromarray(image).convert("L")) for image in pixels])
    assert gray.shape == (4, 5, 6, 1)
    assert np.abs(gray[..., 0].astype(int) - theirs).max() <= 1
    np.testing.assert_array_equal(images.grayscale(images.rgb(gray)), gray)
    assert images.rgb(pixels) is pixels and images.grayscale(gray) is gray
    with pytest.raises(ValueError, match="got 4"):
        images.rgb(np.zeros((1, 2, 2, 4), np.uint8))


def test_center_crop_undoes_pad():
    pixels = np.random.default_rng(2).integers(0, 256, (2, 5, 4, 3), np.uint8)
    padded = images.pad(pixels, 2)
    assert padded.shape == (2, 9, 8, 3) and padded.sum() == pixels.sum()
    np.testing.assert_array_equal(images.center_crop(padded, (5, 4)), pixels)
    with pytest.raises(ValueError, match="cannot crop 6x4 out of 5x4"):
        images.center_crop(pixels, (6, 4))
