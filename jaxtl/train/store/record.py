"""stage.json: what a stage is and how far it came."""

from pathlib import Path
from typing import Any

from jaxtl.files import Damaged, read_json

KEYS = {"identity": dict, "finished": bool}


def stage_of(directory: Path) -> str:
    """The stage whose folder this is, or the folder of a block of its seeds."""
    return (directory.parent if directory.parent.parent.name == "stages" else directory).name


def read_stage(directory: Path) -> dict[str, Any] | None:
    """The stage.json of a stage's directory, None if that holds no stage.

    Raises:
        Damaged: it does not say what the checkpoints beside it are.
        NotRead: the system does not hand it out.
    """
    path, checkpoints = directory / "stage.json", directory / "checkpoints"
    remedy = (
        "without it nobody knows what the checkpoints beside it were trained with: put a copy of "
        f"it back, or start over with --overwrite={stage_of(directory)}"
    )
    record = read_json(path, KEYS, remedy)
    if record is None and any(each.name.isdecimal() for each in checkpoints.glob("*")):
        raise Damaged(f"{path} is missing; {remedy}")
    return record
