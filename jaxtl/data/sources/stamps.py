"""What tells that files were changed, so that a handle made afterwards reads them again."""

import os
from pathlib import Path


def stamp(path: str | os.PathLike) -> tuple[tuple[str, int, int], ...]:
    """(name, size, time of change) of a file, or of a folder and of what stands in it directly."""
    place = Path(path)
    try:
        places = [place, *sorted(place.iterdir())] if place.is_dir() else [place]
        stats = [(entry.name, entry.stat()) for entry in places if entry.exists()]
    except OSError:  # whoever reads it says so
        return ()
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in stats)
