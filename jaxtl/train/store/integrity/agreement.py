"""What several processes do with one file system: all go on, or none."""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxtl.files import Damaged

LONGEST = 2048  # bytes
Result = TypeVar("Result")


def gather_texts(text: str) -> list[str]:
    """What each process says, in their order; the end of a long text is cut off."""
    if jax.process_count() == 1:
        return [text]
    letters = np.zeros(LONGEST, np.uint8)
    encoded = np.frombuffer(text.encode()[:LONGEST], np.uint8)
    letters[: len(encoded)] = encoded
    rows = multihost_utils.process_allgather(letters)
    return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in rows]


def in_all_processes(attempt: Callable[[], Result]) -> Result:
    """What `attempt` returns, where it raises in no process; all processes call this.

    Args:
        attempt: waits for no other process.

    Raises:
        Damaged: in all processes, if that is the worst that happened in any.
        Exception: what `attempt` raised here.
        ValueError: what it raised in another process.
    """
    if jax.process_count() == 1:
        return attempt()
    result, failure, kind = None, None, ""
    try:
        result = attempt()
    except Exception as error:  # the others must be told of any
        failure, kind = error, "damaged" if isinstance(error, Damaged) else "stopped"
    what = "" if failure is None else str(failure) or type(failure).__name__
    outcomes = [text.partition(" ") for text in gather_texts(f"{kind} {what}")]
    for process, (gravity, _, why) in enumerate(outcomes):
        if gravity == "stopped":
            raise failure or ValueError(f"process {process}: {why}")
    for gravity, _, why in outcomes:
        if gravity == "damaged":
            raise Damaged(why)
    return result
