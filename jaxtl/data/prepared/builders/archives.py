"""Reading what an archive holds, or the folder that somebody unpacked it to.

Nothing is unpacked to the disk, so that no name inside can reach out of a folder, and nothing of
more than `LIMIT` bytes is ever held.
"""

import bz2
import gzip
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jaxtl.data.prepared.builders.originals import Refused

LIMIT = 2**26  # bytes of one file inside
JUNK = re.compile(r"(^|/)(\.|__MACOSX/)")  # what macOS adds
MAGIC = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)


def members(path: Path, pattern: str) -> Iterator[tuple[re.Match, bytes]]:
    """The files of an archive (tar, also with gzip, bzip2 or xz; zip) or of a folder.

    Args:
        path: archive or folder.
        pattern: regular expression of the names wanted, paths inside with `/`. It must match the
            whole name, or all that follows a `/` in it: archives differ in the folders around. The
            name of the folder itself belongs to the names in it.

    Yields:
        (match, content), in the order of an archive, by name in a folder. Hidden files are left
        out, and so is what is no regular file.

    Raises:
        Refused: no archive, one that is damaged, or a file in it of more than `LIMIT` bytes.
    """
    wanted = re.compile(rf"(?:.*/)?(?:{pattern})")
    if path.is_dir():
        files = _of_folder(path, wanted)
    else:
        files = _of_zip(path, wanted) if zipfile.is_zipfile(path) else _of_tar(path, wanted)
    try:
        yield from files
    except Refused:
        raise
    except DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise Refused(f"{path} cannot be read, it is damaged or no archive: {reason}") from error


def content(path: Path, name: str) -> bytes:
    """One file of an archive or a folder, see `members`.

    Raises:
        Refused: there is none of that name.
    """
    for _, data in members(path, re.escape(name)):
        return data
    raise Refused(f"{path} holds no {name}")


def _of_folder(path: Path, wanted: re.Pattern) -> Iterator[tuple[re.Match, bytes]]:
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            file = Path(folder, name)
            inside = file.relative_to(path).as_posix()
            if not JUNK.search(inside) and (match := wanted.fullmatch(f"{path.name}/{inside}")):
                with file.open("rb") as opened:
                    yield match, _read(opened, file.stat().st_size, str(file))


def _of_zip(path: Path, wanted: re.Pattern) -> Iterator[tuple[re.Match, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = info.filename
            if not JUNK.search(name) and (match := wanted.fullmatch(name)):
                if info.flag_bits & 1:
                    raise Refused(f"{path} is encrypted")
                try:
                    opened = archive.open(info)
                except NotImplementedError as error:  # of a compression that Python lacks
                    raise Refused(f"{path} cannot be read: {error}") from error
                with opened:
                    yield match, _read(opened, info.file_size, f"{info.filename} in {path}")


def _of_tar(path: Path, wanted: re.Pattern) -> Iterator[tuple[re.Match, bytes]]:
    with path.open("rb") as file:
        start = file.read(6)
    opener = next((open_ for magic, open_ in MAGIC.items() if start.startswith(magic)), open)
    with opener(path, "rb") as file, tarfile.open(fileobj=_Bounded(file), mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # it would hold the headers of half a million files
            name = member.name.removeprefix("./")
            if member.isfile() and not JUNK.search(name) and (match := wanted.fullmatch(name)):
                label = f"{member.name} in {path}"
                yield match, _read(archive.extractfile(member), member.size, label)


class _Bounded:
    """A decompressed tar, whose headers may ask for as much as they like (of a name, say)."""

    def __init__(self, file: BinaryIO):
        self.seek, self.tell, self._file = file.seek, file.tell, file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LIMIT:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)


def _read(file: Any, size: int, label: str) -> bytes:
    if size > LIMIT:
        raise Refused(f"{label} has {size:,} bytes, expected at most {LIMIT:,}")
    data = file.read(size + 1)
    if len(data) != size:
        raise Refused(f"{label} is cut off: {len(data):,} of {size:,} bytes")
    return data
