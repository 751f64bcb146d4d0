import numpy as np
import pytest

from jaxtl import data


def images(pixels):
    return data.arrays(np.asarray(pixels, np.uint8)[..., None], np.zeros(len(pixels), int))


RAMP = np.arange(25).reshape(1, 5, 5) * 10


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_quarter_turns(turns):
    turned = data.rotated(images(RAMP), 90 * turns).table().inputs[0, ..., 0]
    np.testing.assert_array_equal(turned, np.rot90(RAMP[0], turns))


def test_rotation_by_any_angle_agrees_with_sampling_by_hand():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 9, 9))
    turned = data.rotated(images(pixels), 30).table().inputs[0, ..., 0]
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    for y, x in [(4, 4), (3, 5), (5, 2)]:  # the point comes from a turn back, about (4, 4)
        v, u = 4 + cos * (y - 4) + sin * (x - 4), 4 - sin * (y - 4) + cos * (x - 4)
        i, j = int(v), int(u)
        square = pixels[0, i : i + 2, j : j + 2]
        expected = [1 - (v - i), v - i] @ square @ [1 - (u - j), u - j]
        assert abs(turned[y, x] - expected) <= 1


def test_thickened_is_the_maximum_over_each_window():
    pixels = np.random.default_rng(1).integers(0, 256, (3, 6, 7))
    thick = data.thickened(images(pixels)).table().inputs[..., 0]
    for n, y, x in np.ndindex(pixels.shape):
        assert thick[n, y, x] == pixels[n, max(y - 1, 0) : y + 1, max(x - 1, 0) : x + 1].max()


def test_noise_has_its_deviation_and_is_always_the_same():
    gray = images(np.full((20, 16, 16), 128))
    noisy = data.noisy(gray, 0.1).table().inputs
    np.testing.assert_allclose(noisy.std(), 25.5, rtol=0.05)
    np.testing.assert_allclose(noisy.mean(), 128, atol=1)
    again = data.noisy(images(np.full((20, 16, 16), 128)), 0.1).table().inputs
    np.testing.assert_array_equal(noisy, again)


def test_inverting_twice_changes_nothing():
    splits = data.Splits(train=images(RAMP))
    np.testing.assert_array_equal(data.inverted(splits).train.table().inputs[0, 0, 1], [245])
    twice = data.inverted(data.inverted(splits)).train.table().inputs
    np.testing.assert_array_equal(twice[..., 0], RAMP)


def test_permuted_pixels_are_in_one_order_for_all_images():
    pixels = np.random.default_rng(2).integers(0, 256, (3, 4, 5, 2), np.uint8)
    dataset = data.arrays(pixels, np.zeros(3, int))
    one, again, other = (data.permuted(dataset, seed).table().inputs for seed in (1, 1, 2))
    order = np.random.default_rng(1).permutation(20)
    for n, place in np.ndindex(3, 20):
        y, x = divmod(place, 5)
        np.testing.assert_array_equal(one[n, y, x], pixels[n, order[place] // 5, order[place] % 5])
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)


def test_subsampling_keeps_every_second_pixel():
    small = data.subsampled(images(RAMP)).table().inputs[0, ..., 0]
    np.testing.assert_array_equal(small, RAMP[0, ::2, ::2])


def test_colours_follow_noisy_labels_as_often_as_asked():
    count = 20_000
    rng = np.random.default_rng(0)
    digits = rng.integers(0, 10, count)
    pixels = rng.integers(1, 256, (count, 2, 2, 1), np.uint8)
    grey = data.arrays(pixels, digits)
    table = data.colored(grey, 0.1).table()
    assert table.inputs.shape == (count, 2, 2, 2) and table.names("label") == ("0 to 4", "5 to 9")
    colors = (table.inputs[..., 1] > 0).all((1, 2)).astype(int)
    np.testing.assert_array_equal(table.inputs.sum(-1, dtype=np.uint8), pixels[..., 0])
    np.testing.assert_array_equal(table.inputs.min(-1), 0)
    labels = table.labels["label"]
    tolerance = 4 * 0.5 / np.sqrt(count)
    assert abs(np.mean(labels != (digits >= 5)) - 0.25) < tolerance
    assert abs(np.mean(colors != labels) - 0.1) < tolerance
    assert abs(np.mean((colors != labels) & (labels != (digits >= 5))) - 0.025) < tolerance
    reversed_ = data.colored(grey, 0.9).table()
    assert np.mean(reversed_.labels["label"] != labels) > 0.3  # draws of its own
    again = data.colored(grey, 0.1).table()
    np.testing.assert_array_equal(again.labels["label"], labels)


def test_colours_need_grey_images_of_classes():
    two = data.arrays(np.ones((3, 2, 2, 1), np.uint8), np.array([-1, 0, 1]))
    with pytest.raises(ValueError, match="needs grey images"):
        data.colored(data.colored(two, 0.1), 0.1).table()
    with pytest.raises(ValueError, match="needs two classes or more; column 'label' has 1"):
        data.colored(images(RAMP), 0.1).table()
    with pytest.raises(ValueError, match=r"color_flip must be in \[0, 1\], got 1.5"):
        data.colored(images(RAMP), 1.5)
    assert data.colored(two, 0.5).table().labels["label"][0] == -1


def test_slices_deal_out_all_rows():
    parts = [images(np.zeros((7, 2, 2))).slice(i, None, 3).rows(0) for i in range(3)]
    assert [list(part) for part in parts] == [[0, 3, 6], [1, 4], [2, 5]]
