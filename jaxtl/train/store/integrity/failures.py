"""Why a checkpoint cannot be read: it is damaged, of another form, or out of reach."""

import gc
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax

from jaxtl.files import Damaged, NotRead, is_of_system, system_error
from jaxtl.plan import PyTree
from jaxtl.train.store.integrity.checksums import check_files
from jaxtl.train.store.integrity.quiet import quietly

ITEM = "state"
FORM = {"trainable", "frozen", "average", "state", "opt_state", "failed"}
Result = TypeVar("Result")


class Outdated(ValueError):
    """A checkpoint that an earlier version wrote."""


def verify(checkpoint: Path) -> bool:
    """Whether a checkpoint's files are as they were written, False if it has no checksums.

    Each process looks at its share of the files.

    Raises:
        Damaged: they are not.
        NotRead: the system does not hand one out.
    """
    try:
        if not checkpoint.exists():
            text = f"process {jax.process_index()} sees no {checkpoint}"
            raise ValueError(f"{text}; all processes need one file system")
        return check_files(checkpoint, ITEM, jax.process_index(), jax.process_count())
    except OSError as error:
        raise NotRead(error.errno, error.strerror, str(error.filename)) from error


def read_checkpoint(
    checkpoint: Path, read: Callable[[Path], Result], verified: bool = False
) -> Result:
    """What `read` makes of a checkpoint's files; what it raises is sorted.

    Args:
        verified: the files are as they were written.

    Raises:
        Damaged, Outdated, NotRead, MemoryError, JaxRuntimeError: as `Checkpoints.restore`.
    """
    with quietly():
        try:
            return read(checkpoint / ITEM)
        except Outdated:
            raise
        except Exception as error:  # whatever a damaged file makes Orbax raise
            failure = _sort(error, checkpoint, verified)
        gc.collect()  # what Orbax left undone complains when it goes
    raise failure


def _sort(error: Exception, checkpoint: Path, verified: bool) -> Exception:
    """What an error in reading a checkpoint means, without what it holds on to."""
    import orbax.checkpoint as ocp

    reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
    if is_of_system(error):
        number = system_error(error)
        return NotRead(number, os.strerror(number), str(checkpoint)) if number else error
    try:
        check_form(ocp.PyTreeCheckpointHandler().metadata(checkpoint / ITEM).tree)
    except Outdated as outdated:
        return outdated
    except Exception:  # as above
        pass
    if verified:
        return Outdated(f"has in {checkpoint} a state of another form ({reason}): train it anew")
    return Damaged(f"{checkpoint} is damaged: {reason}")


def check_form(stored: Mapping[str, PyTree]) -> None:
    """Raises Outdated if a checkpoint holds another state than `TrainState`."""
    if not stored.keys() >= FORM or "statistics" not in stored["state"]:
        raise Outdated(
            "was trained by an earlier version of jaxtl, which this one cannot read: train it anew"
        )


def by_itself() -> Any:
    """Orbax's options for a process that waits for no other."""
    import orbax.checkpoint as ocp

    return ocp.options.MultiprocessingOptions(
        primary_host=None, active_processes={jax.process_index()}
    )
