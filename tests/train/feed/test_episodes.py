"""Episodes as they are drawn: classes and rows distinct, uniform, a function of seed and step."""

import numpy as np
import pytest

from jaxtl import data
from jaxtl.plan import Episodes
from jaxtl.train.feed.episodes import PADDING, EpisodeOrder, distinct, groups_of

SIZES = (7, 9, 30, 8, 11, 7, 15)
TABLE_LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(len(SIZES)), SIZES))


def dataset(labels=TABLE_LABELS):
    inputs = np.arange(len(labels), dtype=np.float32)[:, None]
    return data.arrays(inputs, labels, name="many")


def order(form, tasks=4, seed=0):
    return EpisodeOrder(groups_of(dataset(), form, seed), form, seed, tasks)


def parts(form, block):
    """(support [..., ways, shots], queries [..., ways, queries]) of blocks of rows."""
    support, queries = np.split(block, [form.most_ways * form.most_shots], axis=-1)
    lead = block.shape[:-1]
    return (
        support.reshape(*lead, form.most_ways, form.most_shots),
        queries.reshape(*lead, form.most_ways, form.queries),
    )


def test_no_row_and_no_class_stands_twice_in_thousands_of_episodes():
    form = Episodes(ways=5, shots=3, queries=4)
    block = order(form, tasks=50).block(0, 60)
    assert block.shape == (60, 50, 35)
    rows = block.reshape(-1, 35)
    assert (np.diff(np.sort(rows), axis=1) > 0).all()
    of_class = np.concatenate(parts(form, TABLE_LABELS[block]), axis=-1)
    assert (of_class == of_class[..., :1]).all(), "a class has rows of its own"
    classes = np.sort(of_class[..., 0].reshape(-1, 5))
    assert (np.diff(classes, axis=1) > 0).all()


def test_classes_and_rows_are_uniform():
    form = Episodes(ways=2, shots=1, queries=1)
    rows = order(form, tasks=200).block(0, 100)
    support, queries = (part[..., 0] for part in parts(form, rows))
    for part in (support, queries):
        counts = np.bincount(TABLE_LABELS[part].ravel(), minlength=len(SIZES))
        assert np.abs(counts / part.size - 1 / len(SIZES)).max() < 0.01
        of_third = part[TABLE_LABELS[part] == 2]  # the largest class, 30 rows
        shares = np.bincount(of_third)[np.flatnonzero(TABLE_LABELS == 2)] / of_third.size
        assert np.abs(shares - 1 / 30).max() < 0.01
    first_way = np.bincount(TABLE_LABELS[support[..., 0]].ravel()) / support[..., 0].size
    assert np.abs(first_way - 1 / len(SIZES)).max() < 0.01, "and in any place of an episode"


def test_a_step_is_the_same_however_it_is_reached():
    form = Episodes(ways=(2, 5), shots=(1, 3), queries=4)
    whole = order(form).block(0, 9)
    np.testing.assert_array_equal(order(form).block(4, 5), whole[4:])
    np.testing.assert_array_equal(order(form).block(8, 1), whole[8:])
    assert (order(form, seed=1).block(0, 9) != whole).any()


def test_ranges_are_padded_and_all_their_values_occur():
    form = Episodes(ways=(2, 4), shots=(1, 3), queries=2)
    support, queries = parts(form, order(form, tasks=40).block(0, 50))
    there = queries != PADDING
    ways = there.any(-1).sum(-1)
    shots = (support[..., 0, :] != PADDING).sum(-1)
    for counts, values in ((ways, (2, 3, 4)), (shots, (1, 2, 3))):
        shares = [(counts == value).mean() for value in values]
        np.testing.assert_allclose(shares, 1 / 3, atol=0.05)
    assert (there.all(-1) == there.any(-1)).all(), "a class has all of its queries or none"
    each = (support != PADDING).sum(-1)
    assert ((each == shots[..., None]) == there.any(-1)).all(), "and as many shots as the others"
    assert (there.any(-1) == (np.arange(4) < ways[..., None])).all(), "the first ways are there"


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_distinct_numbers_are_uniform_over_ordered_choices(size):
    count = min(size, 3)
    drawn = distinct([np.random.default_rng(0)], np.full((1, 60_000), size), count)[0]
    assert drawn.min() >= 0 and drawn.max() < size
    assert (np.diff(np.sort(drawn), axis=1) > 0).all()
    if size == 5:
        codes = drawn @ np.array([25, 5, 1])
        assert len(np.unique(codes)) == 60, "5 * 4 * 3 ordered choices"
        assert np.abs(np.unique(codes, return_counts=True)[1] / 1000 - 1).max() < 0.15


def test_rows_without_a_class_belong_to_no_group():
    labels = TABLE_LABELS.astype(np.int32).copy()
    labels[::3] = -1
    form = Episodes(ways=2, shots=1, queries=1)
    groups = groups_of(dataset(labels), form, 0)
    assert sorted(np.concatenate(groups)) == np.flatnonzero(labels >= 0).tolist()


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"ways": (5, 2), "shots": 1, "queries": 1}, "ways must be .* the least first"),
        ({"ways": 2, "shots": 0, "queries": 1}, "shots"),
        ({"ways": 2, "shots": 1, "queries": 0}, "queries"),
    ],
)
def test_a_form_that_is_none_is_refused(form, message):
    with pytest.raises(ValueError, match=message):
        Episodes(**form)
