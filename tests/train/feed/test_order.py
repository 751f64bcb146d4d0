"""The order of the examples is NumPy's, and costs what shuffling costs."""

import numpy as np
import pytest

from jaxtl.train.feed.order import FEW, Stream, generators, index_block


@pytest.mark.parametrize("key", [(0, 0, 0), (3, 1, 17), (2**31 - 1, 5, 2**31), (2**32 - 1, 0, 1)])
@pytest.mark.parametrize("count", [1, FEW, 40])
def test_generators_are_those_of_numpy(key, count):
    seed, domain, epoch = key
    for e, rng in enumerate(generators(seed, domain, epoch, count)):
        expected = np.random.default_rng((seed, domain, epoch + e))
        np.testing.assert_array_equal(rng.permutation(9), expected.permutation(9))
        np.testing.assert_array_equal(rng.integers(2**63, size=3), expected.integers(2**63, size=3))
    assert e == count - 1


@pytest.mark.parametrize("n", [1, 3, 7, 50, 1000])
def test_a_stream_is_its_permutations_one_after_the_other(n):
    rows = np.random.default_rng(n).choice(5000, n, replace=False)
    epochs = [np.random.default_rng((5, 2, e)).permutation(rows) for e in range(2000 // n + 2)]
    whole, stream = np.concatenate(epochs), Stream(rows, 5, 2)
    rng = np.random.default_rng(0)
    for start, count in zip(rng.integers(0, 1000, 50), rng.integers(0, 900, 50), strict=True):
        np.testing.assert_array_equal(stream.read(start, count), whole[start : start + count])


def test_a_block_holds_the_streams_and_zeros_beyond_its_steps():
    streams = [[Stream(np.arange(1, 8), seed, d) for d in range(2)] for seed in (4, 9)]
    streams.append(streams[0])  # another point of a sweep
    block = index_block(streams, 3, 5, 4, length=8)
    assert block.shape == (3, 8, 4, 2) and block.dtype == np.int32
    assert (block[:, :5] > 0).all() and not block[:, 5:].any()
    for i in range(3):
        for d in range(2):
            np.testing.assert_array_equal(block[i, :5, :, d].ravel(), streams[i][d].read(12, 20))
    np.testing.assert_array_equal(block[:, :5], index_block(streams, 3, 5, 4))
    later = index_block(streams, 6, 2, 4)
    np.testing.assert_array_equal(block[:, 3:5], later)


def test_replicas_of_a_seed_read_their_order_once(monkeypatch):
    reads, read = [], Stream.read
    monkeypatch.setattr(Stream, "read", lambda *args: reads.append(args) or read(*args))
    shared = [Stream(np.arange(9), 0, 0)]
    block = index_block([shared] * 4, 0, 3, 2)
    assert len(reads) == 1 and (block == block[:1]).all()
