"""Orbax checkpoints of a stage: asynchronous, atomic, the latest two kept.

A checkpoint holds a `TrainState` whose frozen parameters are those that were not loaded, every leaf
with the leading axis of replicas, under the number of the step it was taken after.
"""

import functools
import itertools
import logging
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxtl.files import Damaged, read_json, write_text, writing
from jaxtl.plan import Params, PyTree, State
from jaxtl.train.mesh import from_primary, is_primary, shard_state
from jaxtl.train.state import Best, TrainState, evaluated_params
from jaxtl.train.store.integrity.agreement import in_all_processes
from jaxtl.train.store.integrity.checksums import write_checksums
from jaxtl.train.store.integrity.failures import (
    ITEM,
    Outdated,
    by_itself,
    check_form,
    read_checkpoint,
    verify,
)
from jaxtl.train.store.integrity.quiet import quietly
from jaxtl.train.store.record import stage_of

logger = logging.getLogger(__name__)

DESCRIPTION = "_CHECKPOINT_METADATA"
_polls = itertools.count(1)


class Checkpoints:
    """The checkpoints of one stage; close it (or use `with`) so that pending saves finish."""

    def __init__(self, directory: Path):
        import orbax.checkpoint as ocp

        self._ocp, self.directory = ocp, directory.absolute()
        self._mend_descriptions()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2,
            create=True,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        with writing(self.directory), quietly():
            self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with writing(self.directory):
            self._manager.close()

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, latest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def save(self, step: int, train: TrainState) -> None:
        """Start saving; returns before the files are written.

        Raises:
            NotWritten: this checkpoint cannot be, or the one whose saving was under way.
        """
        if step not in self._manager.all_steps():
            args = self._ocp.args.Composite(**{ITEM: self._ocp.args.StandardSave(train)})
            with writing(self.directory):
                self._manager.save(step, args=args, force=True)

    def _seal(self) -> None:
        """Write checksums into the checkpoint that is whole now, before it gets its name."""
        for path in self.directory.glob("*.orbax-checkpoint-tmp"):
            if (path / ITEM).is_dir():
                write_checksums(path, ITEM)

    def _mend_descriptions(self) -> None:
        """Orbax describes a checkpoint by no number that we read, but wants to find an object."""
        for folder in self.directory.glob("*") if is_primary() else ():
            path = folder / DESCRIPTION
            if folder.name.isdecimal() and folder.is_dir() and not path.is_dir():
                try:
                    problem = "" if read_json(path) is not None else f"{path} is missing"
                except Damaged as error:
                    problem = str(error)
                if problem:
                    logger.warning("%s; it is written anew, no number is in it", problem)
                    write_text(path, "{}\n")
        multihost_utils.sync_global_devices(f"{self.directory} is mended")

    def preempted(self) -> bool:
        """Whether the processes agreed to stop now; always False for one process.

        They agree on a number that they all reach, so the calls are counted one by one.
        """
        return jax.process_count() > 1 and self._manager.reached_preemption(next(_polls))

    def wait(self) -> None:
        """Return when every save is on disk; raises what a failed save raised."""
        with writing(self.directory):
            self._manager.wait_until_finished()

    def restore(self, step: int, abstract: TrainState, verified: bool = False) -> TrainState:
        """The checkpoint of a step, as arrays that are split as the current mesh asks.

        Each process reads by itself: one that fails leaves no other waiting.

        Args:
            abstract: the shapes and dtypes that the file must hold.
            verified: its files are as they were written.

        Raises:
            Damaged: it is not readable.
            Outdated: it is whole, but has not the form of this version.
            NotRead, MemoryError, JaxRuntimeError: the system fails; it may be whole.
        """
        target = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            abstract,
            shard_state(abstract),
        )
        handler = self._ocp.StandardCheckpointHandler(multiprocessing_options=by_itself())
        args = self._ocp.args.StandardRestore(target)

        def read(item: Path) -> TrainState:
            options = {"multiprocessing_options": by_itself()}
            with self._ocp.Checkpointer(handler, **options) as checkpointer:
                return checkpointer.restore(item, args=args)

        return read_checkpoint(self.directory / str(step), read, verified)

    def restore_latest(self, abstract: TrainState) -> tuple[int, TrainState] | None:
        """(step, train state) of the latest whole checkpoint, None if there is none.

        A damaged one is reported and set aside under another name, and the one before it is tried.
        All processes take a checkpoint or none does.

        Raises:
            Outdated, NotRead, MemoryError, JaxRuntimeError: as `restore`; all files stay.
            ValueError: that happened in another process.
        """
        steps = from_primary(" ".join(map(str, self.steps()))).split()
        for step in map(int, steps):
            path = self.directory / str(step)
            try:
                verified = in_all_processes(functools.partial(verify, path))
                read = functools.partial(self.restore, step, abstract, verified)
                return step, in_all_processes(read)
            except Damaged as error:
                self._set_aside(path, str(error))
            except Outdated as error:
                stage = stage_of(self.directory.parent)
                raise Outdated(f"stage {stage!r} {error}; --overwrite={stage}") from None
        if steps:
            logger.warning("%s holds no whole checkpoint: its stage starts again", self.directory)
        return None

    def _set_aside(self, path: Path, why: str) -> None:
        """Rename a damaged checkpoint, once for all processes."""
        names = (f"damaged-{path.name}", *(f"damaged-{path.name}-{i}" for i in range(2, 1000)))
        aside = next(p for p in map(path.with_name, names) if not p.exists())
        logger.error(
            "checkpoint %s is unreadable (%s); it is kept as %s, and the one before it is tried",
            *(path, why, aside.name),
        )
        multihost_utils.sync_global_devices(f"{path} was tried")

        def rename() -> None:
            with writing(aside):
                if is_primary():
                    path.rename(aside)

        in_all_processes(rename)
        self._manager.reload()


def restore_block(directory: Path, method_state: PyTree = None) -> tuple[Params, State]:
    """(params, state) of a block as NumPy arrays, leaves with the leading axis of its seeds.

    Args:
        directory: holds its checkpoints/.
        method_state: as in `restore_weights`.

    Raises:
        ValueError: there is no checkpoint, it is damaged or `Outdated`; the message goes on from
            the stage's name.
    """
    folder = directory.absolute() / "checkpoints"
    steps = [path for path in folder.glob("*") if path.name.isdecimal()]
    if not steps:
        raise ValueError("has no checkpoint")
    last = max(steps, key=lambda path: int(path.name))
    try:
        verified = verify(last)
        return read_checkpoint(last, lambda item: restore_weights(item, method_state), verified)
    except Damaged as error:
        raise Damaged(
            f"has a damaged checkpoint {last.name}: {error}; a launch of its run sets it aside and "
            "trains what is lost again"
        ) from None


def restore_weights(path: Path, method_state: PyTree = None) -> tuple[Params, State]:
    """(params, state) that a checkpoint hands on, without its optimizers.

    Args:
        method_state: the method's own state, any leaves: the file does not keep its structure.
            None leaves it out.

    Raises:
        Outdated: it has the form of an earlier version.
    """
    import orbax.checkpoint as ocp

    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=by_itself())
    with ocp.Checkpointer(handler, multiprocessing_options=by_itself()) as checkpointer:
        stored = handler.metadata(path).tree
        check_form(stored)
        wanted = {name: stored[name] or {} for name in ("trainable", "frozen", "average")}
        wanted["state"] = _state_form(stored["state"], method_state)
        if best := stored["best"]:
            wanted["best"] = {**best, "state": _state_form(best["state"], method_state)}
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        args = ocp.args.PyTreeRestore(item=wanted, restore_args=how, partial_restore=True)
        restored = checkpointer.restore(path, args=args)
    best = restored.pop("best", None)
    best = best and Best(**{**best, "state": State(**best["state"])})
    state = State(**restored.pop("state"))
    return evaluated_params(
        TrainState(**restored, state=state, opt_state={}, rules={}, failed=(), best=best)
    )


def _state_form(state: Mapping[str, PyTree], method_state: PyTree) -> dict[str, PyTree]:
    """The form of a stored state; its method's own as it is expected."""
    rest = {} if method_state is None else {"method": method_state}
    return {"statistics": state["statistics"] or {}, **rest}
