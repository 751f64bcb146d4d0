"""The lines of a stage's metrics.jsonl as TensorBoard events.

events.out.tfevents.*                             the mean over the seeds, not over points
events/seed-3-at-rate=0.1/events.out.tfevents.*   one of several replicas, a run of TensorBoard
"""

import contextlib
import logging
import os
import shutil
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtl.files import writing
from jaxtl.train.resolve.replicas import Replicas

logger = logging.getLogger(__name__)

MOST_RUNS = 100
"""Replicas of a stage that are runs of their own: each is an open file."""
NAMES = "events.out.tfevents.*"

Line = Mapping[str, Any]


class Events:
    """Writes events as metrics.jsonl is written, which is where an earlier process left off.

    Files of that process are replaced by its lines: whatever they lacked or had in excess, no
    reader finds a step twice or misses one. A step keeps the time that it had in them.
    """

    def __init__(self, directory: Path, replicas: Replicas, lines: Sequence[Line]):
        from tensorboardX.event_file_writer import EventsWriter

        self._directory = directory
        runs = _runs(directory, replicas)
        if not runs or len(replicas) > MOST_RUNS:
            logger.warning(
                "%s: no TensorBoard events of each of %d replicas; metrics.jsonl has them",
                directory,
                len(replicas),
            )
        times = _times(next(iter(runs))) if runs else {}
        with writing(directory):
            for file in directory.glob(NAMES):
                file.unlink()
            shutil.rmtree(directory / "events", ignore_errors=True)
            self._writers = []
            for folder, chosen in runs.items():
                folder.mkdir(parents=True, exist_ok=True)
                writer = EventsWriter(str(folder / "events"), f".{os.getpid()}")
                self._writers.append((writer, chosen))
        self.write(lines, times)

    def write(self, lines: Sequence[Line], times: Mapping[int, float] | None = None) -> None:
        """Append lines, all of which a process that is killed afterwards leaves behind.

        Args:
            times: {step: seconds since 1970}; now for steps that it lacks.
        """
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        if not lines:
            return
        now, times = time.time(), times or {}
        names = dict.fromkeys(name for line in lines for name in line if name != "step")
        places = {name: [i for i, line in enumerate(lines) if name in line] for name in names}
        values = {name: np.asarray([lines[i][name] for i in places[name]], float) for name in names}
        with writing(self._directory):
            for writer, chosen in self._writers:
                summaries = [Summary() for _ in lines]
                for name, rows in values.items():
                    means = rows[:, chosen].mean(1).tolist()
                    for i, mean in zip(places[name], means, strict=True):
                        summaries[i].value.add(tag=name, simple_value=mean)
                for line, summary in zip(lines, summaries, strict=True):
                    at = times.get(line["step"], now)
                    writer.write_event(Event(wall_time=at, step=line["step"], summary=summary))
                writer.flush()


def complete_events(directory: Path, replicas: Replicas, lines: Sequence[Line]) -> None:
    """Write the events of a finished stage, unless its last process did."""
    runs = _runs(directory, replicas)
    if runs and list(_times(next(iter(runs)))) != [line["step"] for line in lines]:
        Events(directory, replicas, lines)


def _runs(directory: Path, replicas: Replicas) -> dict[Path, list[int]]:
    """{folder of a run of TensorBoard: the replicas whose mean it shows}."""
    count = len(replicas)
    runs = {} if replicas.points > 1 else {directory: list(range(count))}
    if 1 < count <= MOST_RUNS:
        names = [replicas.describe(i).replace(",", "").replace(" ", "-") for i in range(count)]
        for i, name in enumerate(names):
            twin = f"-{i}" if names.count(name) > 1 else ""  # its numbers were shortened
            runs[directory / "events" / f"{name}{twin}"] = [i]
    return runs


def _times(folder: Path) -> dict[int, float]:
    """{step: when it was written} in the events of a folder, as far as they are whole."""
    from google.protobuf.message import DecodeError
    from tensorboardX.proto.event_pb2 import Event

    times: dict[int, float] = {}
    for file in sorted(folder.glob(NAMES)):
        content, start = file.read_bytes(), 0
        with contextlib.suppress(struct.error, DecodeError):  # it ends within a record
            while start < len(content):
                (length,) = struct.unpack_from("<Q", content, start)
                event = Event.FromString(content[start + 12 : start + 12 + length])
                if event.HasField("summary"):
                    times[event.step] = event.wall_time
                start += length + 16  # the length and the record have a checksum each
    return times
