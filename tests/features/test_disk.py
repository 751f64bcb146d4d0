import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counted_rows import counted_model, rows_computed

from jaxtl.features import FeatureStore, feature_store, shared
from jaxtl.features.disk import PARTIAL, README, RECORD, Disk

ROWS = np.random.default_rng(0).random((40, 5), np.float32)
ALL = np.arange(40)


@pytest.fixture(autouse=True)
def all_is_worth_keeping(monkeypatch):
    monkeypatch.setattr(feature_store, "WRITE_SECONDS", 0)
    monkeypatch.setattr(feature_store, "READ_BYTES_PER_SECOND", 1e30)


@pytest.fixture(scope="module")
def first():
    model = counted_model()
    return (model.cut("a")[0], *model.init(jax.random.key(0), ROWS[:1]))


def kept(first, folder, **options):
    """The features, which another process has then left in a folder."""
    keeper = FeatureStore(folder, **options)
    whole = keeper.features(*first, ROWS, ALL)
    keeper.flush()
    rows_computed()
    return whole


def shards(folder):
    return [path for path in Path(folder).glob("*/*") if not path.name.startswith(".")]


def test_another_store_on_the_same_folder_computes_nothing(first, tmp_path):
    whole, again = kept(first, tmp_path), FeatureStore(tmp_path)
    np.testing.assert_array_equal(again.features(*first, ROWS, ALL[::-1]), whole[::-1])
    part = again.features(*first, ROWS, ALL[3:9])
    assert isinstance(part.base, np.memmap) or isinstance(part, np.memmap)  # nothing is copied
    assert rows_computed() == 0 and again.counts.computed == 0
    assert again.counts.from_disk == 46 and again.counts.seconds_saved > 0
    again.flush()
    assert len(shards(tmp_path)) == 1 and "may be deleted" in (tmp_path / README).read_text()


def test_what_is_missing_is_added(first, tmp_path):
    FeatureStore(tmp_path).features(*first, ROWS, ALL[:10])
    kept(first, tmp_path)
    more = np.concatenate([ROWS, ROWS[:5] + 1])
    keeper = FeatureStore(tmp_path)
    keeper.features(*first, more, np.arange(45))
    assert keeper.counts.computed == 5 and keeper.counts.from_disk == 40
    keeper.flush()
    assert len(shards(tmp_path)) == 2
    last = FeatureStore(tmp_path)
    last.features(*first, more, np.arange(45)[::-1])
    assert last.counts.computed == 0


def test_what_is_computed_faster_than_read_leaves_no_file(first, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_store, "WRITE_SECONDS", 1e9)
    kept(first, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def truncate(path):
    os.truncate(path, path.stat().st_size - 4)


DAMAGES = {
    "a flipped bit": lambda shard: flip(shard / "0.npy"),
    "a flipped bit of the digests": lambda shard: flip(shard / "rows.npy"),
    "a short file": lambda shard: truncate(shard / "0.npy"),
    "a missing file": lambda shard: (shard / "0.npy").unlink(),
    "no record": lambda shard: (shard / RECORD).unlink(),
    "half a record": lambda shard: truncate(shard / RECORD),
    "a record of nothing": lambda shard: (shard / RECORD).write_text('{"checksums": {}}'),
    "another length": lambda shard: lengthened(shard / RECORD),
}


def lengthened(path):
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "rows": 7}))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_computed_again_with_a_line(first, tmp_path, caplog, damage):
    whole = kept(first, tmp_path)
    DAMAGES[damage](shards(tmp_path)[0])
    keeper = FeatureStore(tmp_path)
    np.testing.assert_array_equal(keeper.features(*first, ROWS, ALL), whole)
    assert keeper.counts.computed == 40 and "are computed again" in caplog.text
    keeper.flush()
    again = FeatureStore(tmp_path)
    np.testing.assert_array_equal(again.features(*first, ROWS, ALL), whole)
    assert again.counts.computed == 0


def test_a_removed_folder_is_made_again(first, tmp_path):
    whole = kept(first, tmp_path / "folder")
    keeper = FeatureStore(tmp_path / "folder")
    keeper.features(*first, ROWS, ALL)
    for path in sorted((tmp_path / "folder").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    np.testing.assert_array_equal(keeper.features(*first, ROWS, ALL[::-1]), whole[::-1])  # mapped
    kept(first, tmp_path / "folder")
    assert len(shards(tmp_path / "folder")) == 1


def other(first, scale):
    return first[0], jax.tree.map(lambda leaf: leaf * scale, first[1]), first[2]


def test_the_longest_unused_go_first_and_never_what_is_in_use(first, tmp_path, caplog):
    limit = {"folder_bytes": 5500}  # two shards: 40 rows of 6 floats and a digest each
    for age, scale in ((300, 1), (200, 2)):
        before = set(tmp_path.glob("*/"))
        kept(other(first, scale), tmp_path, **limit)
        (folder,) = set(tmp_path.glob("*/")) - before
        os.utime(folder, (time.time() - age, time.time() - age))
    keeper = FeatureStore(tmp_path, **limit)
    keeper.features(*other(first, 1), ROWS, ALL)  # used again
    keeper.features(*other(first, 3), ROWS, ALL)
    keeper.flush()
    left = FeatureStore(tmp_path, **limit)
    for scale, computed in ((1, 0), (3, 0), (2, 40)):
        left.features(*other(first, scale), ROWS, ALL)
        assert left.counts.computed == computed, scale
    assert not [record for record in caplog.records if record.name.startswith("jaxtl")]
    greedy = FeatureStore(tmp_path, folder_bytes=100)
    greedy.features(*other(first, 4), ROWS, ALL)
    greedy.flush()
    greedy.features(*other(first, 5), ROWS, ALL)
    greedy.flush()
    assert caplog.text.count("more than 0 MB") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_means_one_warning(first, tmp_path, caplog):
    tmp_path.chmod(0o500)
    for _ in range(2):
        kept(first, tmp_path / "folder")
    tmp_path.chmod(0o700)
    assert caplog.text.count("not all features are kept") == 2  # one for each store


def test_a_file_in_the_place_of_the_folder(first, tmp_path, caplog):
    (tmp_path / "file").touch()
    keeper = FeatureStore(tmp_path / "file")
    for scale in (1, 2):
        keeper.features(*other(first, scale), ROWS, ALL)
        keeper.flush()
    assert caplog.text.count("not all features are kept") == 1
    assert keeper.counts.computed == 80


def test_a_full_disk_costs_a_warning(first, tmp_path, caplog):
    from full_disk import disk_of

    with disk_of(300):
        kept(first, tmp_path)
    assert "not all features are kept" in caplog.text and not shards(tmp_path)
    assert not list(tmp_path.glob(f"**/{PARTIAL}*"))


def test_narrow_floats_come_back_as_they_went(tmp_path):
    disk, values = Disk(tmp_path, 1e9), jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3)
    digests = np.arange(32, dtype=np.uint8).reshape(2, 16)
    disk.write("key", digests, [np.asarray(values)], 0.5, "")
    (shard,) = Disk(tmp_path, 1e9).read("key")
    typed = feature_store._typed(shard.leaves[0], np.asarray(values).dtype)
    np.testing.assert_array_equal(typed, values)
    np.testing.assert_array_equal(shard.digests, digests)
    assert shard.seconds_per_row == 0.5


WRITER = """
import sys, time, numpy as np
from pathlib import Path
from jaxtl.features import disk

def slowly(path, values, save=disk._save):
    save(path, values)
    print("writing", flush=True)
    time.sleep(60)

disk._save = slowly
rows = np.zeros((2, 16), np.uint8)
disk.Disk(Path(sys.argv[1]), 1e9).write("key", rows, [np.ones((2, 3))], 1.0, "")
"""


def test_what_a_killed_process_left_is_harmless_and_cleaned_up(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    alive = Disk(tmp_path, 1e9)
    alive.write("other", np.zeros((2, 16), np.uint8), [np.ones((2, 3))], 1.0, "")
    assert list(tmp_path.glob(f"key/{PARTIAL}*"))  # of a living process
    process.send_signal(signal.SIGKILL)
    process.wait()
    later = Disk(tmp_path, 1e9)
    assert later.read("key") == []
    later.write("key", np.ones((2, 16), np.uint8), [np.ones((2, 3))], 1.0, "")
    assert not list(tmp_path.glob(f"**/{PARTIAL}*")) and len(later.read("key")) == 1


def test_a_run_uses_its_folder_and_counts_for_itself(first, tmp_path):
    keeper = shared.store()
    before, place = keeper.counts, keeper.folder
    with shared.keeping(str(tmp_path), 1e9, 1e9):
        assert shared.counted() is None
        keeper.features(*other(first, 11), ROWS, ALL)
        keeper.features(*other(first, 11), ROWS, ALL)
        counts = shared.counted()
        assert counts["computed"] == 40 and counts["from_memory"] == 40
    assert keeper.folder == place and keeper.counts.computed == before.computed + 40
    assert len(shards(tmp_path)) == 1
    again = FeatureStore(tmp_path)
    again.features(*other(first, 11), ROWS, ALL)
    assert again.counts.computed == 0
    none = {**counts, "computed": 0, "from_disk": 0, "from_memory": 9, "seconds_saved": 3.0}
    assert (
        shared.in_words(none)
        == "features of frozen layers were all there, 9 times read: about 3 s saved"
    )
    words = shared.in_words({**counts, "computed": 12000, "from_disk": 10**6, "seconds_saved": 240})
    assert words == (
        "features of 12,000 examples were computed once, 1,000,040 times read: about 4 min saved"
    )
