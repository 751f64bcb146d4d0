"""Orbax checkpoints of a stage: asynchronous, atomic, the latest two kept.

A checkpoint holds all that a stage changes: {"trainable", "state", "opt_state", ...}, and "frozen"
as far as it was not loaded, every leaf with the leading axis of seeds, under the number of the step
it was taken after.
"""

import itertools
import logging
import shutil
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from jaxtl.plan import PyTree
from jaxtl.train.sharding import is_primary, shard_state
from jaxtl.train.writing import writing

logger = logging.getLogger(__name__)

ITEM = "state"
_polls = itertools.count(1)


class Checkpoints:
    """The checkpoints of one stage; close it (or use `with`) so that pending saves finish."""

    def __init__(self, directory: Path):
        import orbax.checkpoint as ocp

        self._ocp, self.directory = ocp, directory.absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, create=True, cleanup_tmp_directories=True
        )
        with writing(self.directory):
            self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with writing(self.directory):
            self._manager.close()

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, latest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def save(self, step: int, state: PyTree) -> None:
        """Start saving; returns before the files are written.

        Raises:
            NotWritten: this checkpoint cannot be, or the one whose saving was under way.
        """
        if step not in self._manager.all_steps():
            args = self._ocp.args.Composite(**{ITEM: self._ocp.args.StandardSave(state)})
            with writing(self.directory):
                self._manager.save(step, args=args, force=True)

    def preempted(self) -> bool:
        """Whether the processes agreed to stop now; always False for one process.

        They agree on a number that they all reach, so the calls are counted one by one.
        """
        return jax.process_count() > 1 and self._manager.reached_preemption(next(_polls))

    def wait(self) -> None:
        """Return when every save is on disk; raises what a failed save raised."""
        with writing(self.directory):
            self._manager.wait_until_finished()

    def restore(self, step: int, abstract: PyTree) -> PyTree:
        """The checkpoint of a step, as arrays that are split as the current mesh asks.

        Args:
            abstract: tree of shapes and dtypes that the file must hold.
        """
        target = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            abstract,
            shard_state(abstract),
        )
        args = self._ocp.args.Composite(**{ITEM: self._ocp.args.StandardRestore(target)})
        return self._manager.restore(step, args=args)[ITEM]

    def restore_latest(self, abstract: PyTree) -> tuple[int, PyTree] | None:
        """(step, state) of the latest readable checkpoint, None if there is none.

        An unreadable one is reported and set aside under another name, and the one before it is
        tried.
        """
        for step in self.steps():
            try:
                return step, self.restore(step, abstract)
            except Exception as error:  # whatever a damaged file makes Orbax raise
                self._set_aside(step, str(error).strip().split("\n")[0][:200])
        return None

    def _set_aside(self, step: int, why: str) -> None:
        """Rename a checkpoint, once for all processes, none of which can read it."""
        path, aside = self.directory / str(step), self.directory / f"damaged-{step}"
        message = (
            "checkpoint %s is unreadable (%s); it is kept as %s, and the one before it is tried"
        )
        logger.error(message, path, why, aside)
        multihost_utils.sync_global_devices(f"{path} was tried")
        if is_primary():
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
        multihost_utils.sync_global_devices(f"{path} is set aside")
        self._manager.reload()
