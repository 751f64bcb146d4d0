"""Zip archives of arrays: what a member says that it holds is checked before it is unpacked."""

import zipfile
from pathlib import Path

# Weights shrink by a tenth, half empty ones to a fourth; only bombs shrink to a hundredth.
_FLOOR, _RATIO = 64 * 2**20, 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Unreadable(ValueError):
    """Why a file is not read, as the end of a message."""


def members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """{name: member} of an archive that is safe to unpack.

    Raises:
        Unreadable: members share a name or bytes, are compressed in a way that NumPy and PyTorch
            do not use, or unpack to more than 64 MB and 20 times the size of the file.
    """
    size, infos = path.stat().st_size, archive.infolist()
    limit = max(_FLOOR, _RATIO * size)
    total = sum(info.file_size for info in infos)
    if total > limit:
        raise Unreadable(
            f"it has {size} bytes and would unpack to {total}, more than {limit}: save it "
            "without compression"
        )
    if sum(info.compress_size for info in infos) > size:
        raise Unreadable("its members overlap")
    names = {info.filename: info for info in infos}
    if len(names) < len(infos):
        raise Unreadable("two of its members have the same name")
    for name, info in names.items():
        if info.compress_type not in _METHODS:
            raise Unreadable(
                f"{shorten(name)} is compressed by method {info.compress_type}, expected none "
                "or deflate"
            )
    return names


def unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a member, as many as it says; the archive checks their sum.

    Raises:
        Unreadable: there are fewer.
    """
    with archive.open(info) as file:
        content = file.read(info.file_size)  # without a size, zipfile inflates first and cuts then
    if len(content) < info.file_size:
        raise Unreadable(f"{shorten(info.filename)} is shorter than it says")
    return content


def shorten(text: object, length: int = 80) -> str:
    """A text of a file that may say anything, on one line of bounded length."""
    line = " ".join(str(text)[: 4 * length].split())
    printable = "".join(c if c.isprintable() else "?" for c in line)
    return printable if len(printable) <= length else f"{printable[:length]}..."
