"""Checksums of a checkpoint's files, so that a damaged one is known before it is read.

Arrays have none of their own: garbled bytes of a weight would be read as another weight.
"""

import json
from pathlib import Path

from jaxtl.files import Damaged, checksums, read_json

RECORD = "checksums.json"


def write_checksums(checkpoint: Path, item: str) -> None:
    """Write down the sizes and checksums of the files below `<checkpoint>/<item>`."""
    root = checkpoint / item
    names = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    sums = dict(checksums(root, sorted(names)))
    (checkpoint / RECORD).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")


def check_files(checkpoint: Path, item: str, part: int = 0, parts: int = 1) -> bool:
    """Compare the files below `<checkpoint>/<item>` with their checksums.

    Args:
        part, parts: look at the files `part`, `part + parts`, ... only.

    Returns:
        Whether there are checksums; earlier versions wrote none.

    Raises:
        Damaged: a file is not as it was written, or not there.
        OSError: a file cannot be read.
    """
    sums = read_json(checkpoint / RECORD)
    if sums is None:
        return False
    try:
        for name, each in checksums(checkpoint / item, list(sums)[part::parts]):
            if each != sums[name]:
                path = checkpoint / item / name
                raise Damaged(f"{path} is not as it was written")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Damaged(f"{error.filename}: {error.strerror}") from error
    return True
