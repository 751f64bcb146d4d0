"""Small files in the formats of published datasets, for the builders that read those."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import PIL.Image


def image(pixels: np.ndarray, form: str = "PNG") -> bytes:
    """An image file of uint8 [height, width(, channels)]."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    """An archive, tar.gz or zip by its name, of {name inside: content}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def unpack(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A folder of {name inside: content}."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder
