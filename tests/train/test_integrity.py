"""What is damage and what is not, and what several processes make of it."""

import errno
import json
import logging
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import assert_same, stages, train

from jaxtl import files
from jaxtl.train.store.checkpoints import Checkpoints
from jaxtl.train.store.integrity.failures import Outdated, read_checkpoint
from jaxtl.train.store.log import read_curves, read_log
from jaxtl.train.store.record import read_stage


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole") / "pretrain"
    return directory, train(stages(steps=12)[0], directory)


@pytest.fixture
def copied(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "pretrain")
    return tmp_path / "pretrain"


def test_a_flipped_bit_of_a_weight_is_damage(copied, whole, caplog):
    path = max((copied / "checkpoints/12/state").rglob("d/*"), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    run = train(stages(steps=12)[0], copied)
    assert_same(run.params, whole[1].params)
    assert f"{path} is not as it was written" in caplog.text
    assert (copied / "checkpoints" / "damaged-12").is_dir()


SYSTEM = [
    MemoryError(),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.EMFILE, "Too many open files"),
    PermissionError(errno.EACCES, "Permission denied"),
    TimeoutError(errno.ETIMEDOUT, "timed out"),
    ValueError("UNKNOWN: Error reading x: Input/output error [os_error_code='5']"),
    ValueError("RESOURCE_EXHAUSTED: Error opening local file"),
    ValueError("UNAVAILABLE: the bucket does not answer"),
    RuntimeError("can't start new thread"),
    jax.errors.JaxRuntimeError("INTERNAL: the device is lost"),
]
DAMAGE = [
    FileNotFoundError(errno.ENOENT, "No such file"),
    IsADirectoryError(errno.EISDIR, "Is a directory"),
    ValueError("DATA_LOSS: Error decoding"),
    ValueError("NOT_FOUND: no manifest [os_error_code='2']"),
    KeyError("tree_metadata"),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "invalid"),
    EOFError(),
]


@pytest.mark.parametrize("error", SYSTEM, ids=repr)
def test_errors_of_the_system_are_no_damage(error):
    wrapped = ValueError("reading failed")
    wrapped.__cause__ = error
    assert files.is_of_system(error) and files.is_of_system(wrapped)


@pytest.mark.parametrize("error", DAMAGE, ids=repr)
def test_what_files_hold_is(error):
    assert not files.is_of_system(error)


@pytest.mark.parametrize("error", SYSTEM[:3], ids=repr)
def test_no_checkpoint_is_touched_if_a_file_cannot_be_read(copied, monkeypatch, error):
    path_open = Path.open

    def fails(path, *args, **more):
        if path.name == "_METADATA":
            raise error
        return path_open(path, *args, **more)

    before = sorted(copied.rglob("*"))
    monkeypatch.setattr(Path, "open", fails)
    with pytest.raises((files.NotRead, MemoryError)):
        train(stages(steps=12)[0], copied)
    assert sorted(copied.rglob("*")) == before


@pytest.mark.parametrize("error", SYSTEM, ids=repr)
def test_what_fails_while_reading_a_checkpoint_without_checksums_is_sorted(tmp_path, error):
    def fails(path):
        raise error

    with pytest.raises((files.NotRead, type(error))) as raised:
        read_checkpoint(tmp_path / "12", fails)
    assert not isinstance(raised.value, files.Damaged)


def test_a_whole_checkpoint_of_another_form_is_no_damage(copied):
    before = sorted(copied.rglob("*"))
    with (
        Checkpoints(copied / "checkpoints") as checkpoints,
        pytest.raises(Outdated, match=r"'pretrain' has in .*/12 a state of another form.*--ov"),
    ):
        checkpoints.restore_latest({"weights": jax.ShapeDtypeStruct((3,), np.float32)})
    assert sorted(copied.rglob("*")) == before


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"", "it is empty"),
        (b"\x82", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[]", "it holds a list, expected an object"),
        (b"3", "it holds a number, expected an object"),
        (b"null", "it holds null, expected an object"),
        (b'"x"', "it holds a text, expected an object"),
        (b'{"identity": {}}', "it lacks finished"),
        (b'{"identity": 1, "finished": true}', "its identity is a number, expected an object"),
    ],
)
def test_json_of_another_kind_is_named(tmp_path, content, problem):
    (tmp_path / "stage.json").write_bytes(content)
    with pytest.raises(files.Damaged) as error:
        read_stage(tmp_path)
    assert f"{tmp_path / 'stage.json'} is damaged: {problem}" in str(error.value)
    assert f"--overwrite={tmp_path.name}" in str(error.value)


def test_a_file_that_may_not_be_read_is_not_damaged(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(type(tmp_path), "read_bytes", refuse)
    with pytest.raises(files.NotRead) as error:
        files.read_json(tmp_path / "config.json")
    assert error.value.filename == str(tmp_path / "config.json")


LINE = '{"step": %d, "loss": [1.0, null]}\n'


@pytest.mark.parametrize(
    "third",
    [
        *('{"step": 3', "[]", "3", "null", '"x"', "{}", '{"step": 2, "loss": [1.0, 2.0]}'),
        *('{"step": 3, "loss": [1.0]}', '{"step": 3, "loss": 4}', '{"step": "3", "loss": [1, 2]}'),
        *('{"step": 3, "loss": [1.0, "2"]}', "\x00\x00", ""),
    ],
)
def test_a_log_counts_up_to_what_is_no_line_of_it(tmp_path, caplog, third):
    path = tmp_path / "metrics.jsonl"
    path.write_text(LINE % 1 + LINE % 2 + third + "\n" + LINE % 4)
    assert [line["step"] for line in read_log(tmp_path, 2)] == [1, 2]
    (message,) = caplog.messages
    assert message == f"{path} is damaged from line 3 on; the curves end at step 2"
    np.testing.assert_array_equal(read_curves(tmp_path)["loss"], [[1, np.nan]] * 2)


def test_a_line_that_was_being_written_is_no_damage(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").write_text(LINE % 1 + (LINE % 2)[:9])
    assert [line["step"] for line in read_log(tmp_path)] == [1]
    assert not caplog.messages
    read_curves(tmp_path, last=2)
    assert "lacks the steps after 1 of 2" in caplog.text


def test_leftovers_of_killed_processes_are_not_read(copied, whole, caplog):
    caplog.set_level(logging.WARNING)
    checkpoints = copied / "checkpoints"
    shutil.copytree(checkpoints / "12", checkpoints / "13.orbax-checkpoint-tmp")
    (checkpoints / "13.orbax-checkpoint-tmp" / "state" / "_METADATA").write_text("")
    (copied / ".stage.json.123.tmp").write_text("{")
    assert_same(train(stages(steps=12)[0], copied).params, whole[1].params)
    assert not caplog.messages and not list(checkpoints.glob("*tmp"))
    assert json.loads((copied / "stage.json").read_text())["finished"]
