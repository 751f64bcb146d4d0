"""Archives and folders are read alike, and safely."""

import gzip
import tarfile
import zipfile

import pytest
from small_originals import pack, unpack

from jaxtl.data.prepared.builders import archives
from jaxtl.data.prepared.builders.archives import content, members
from jaxtl.data.prepared.builders.originals import Refused

FILES = {"top/a/1.png": b"one", "top/b/2.png": b"two", "top/b/2.txt": b"no"}


def read(path):
    return {match[1]: data for match, data in members(path, r"([ab]/\d)\.png")}


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip", "folder", "misnamed.rar"])
def test_what_matches_is_read(tmp_path, name):
    junk = {"top/a/._1.png": b"", "__MACOSX/top/a/1.png": b"", "top/.git/a/1.png": b""}
    form = unpack if name == "folder" else pack
    path = form(tmp_path / name, FILES | junk)
    assert read(path) == {"a/1": b"one", "b/2": b"two"}
    assert content(path, "2.txt") == b"no" and content(path, "top/b/2.txt") == b"no"
    with pytest.raises(Refused, match=f"{path} holds no 3.txt"):
        content(path, "3.txt")


def test_the_name_of_a_folder_belongs_to_the_names_in_it(tmp_path):
    folder = unpack(tmp_path / "a", {"1.png": b"one"})
    assert read(folder) == {"a/1": b"one"}


def test_names_that_reach_out_and_links_are_not_followed(tmp_path):
    path = pack(tmp_path / "x.tar.gz", {"../../a/1.png": b"out", "top/b/2.png": b"two"})
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo("a/1.png")
            member.type, member.linkname = kind, str(tmp_path / "x.tar.gz")
            archive.addfile(member)
    assert read(path) == {"b/2": b"two"} and read(tmp_path / "links.tar") == {}
    assert {file.name for file in tmp_path.iterdir()} == {"x.tar.gz", "links.tar"}


def test_what_is_no_whole_archive(tmp_path):
    whole = {name: pack(tmp_path / name, FILES).read_bytes() for name in ("x.tar.gz", "x.zip")}
    whole["page.tar.gz"], whole["empty.zip"] = b"<html>" * 300, b"x"
    for name, data in whole.items():
        path = tmp_path / name
        path.write_bytes(data[: 2 * len(data) // 3])
        with pytest.raises(Refused, match=f"{path} cannot be read, it is damaged or no archive: ."):
            read(path)
    flipped = bytearray(whole["x.zip"])
    flipped[whole["x.zip"].index(b"one")] ^= 1
    (tmp_path / "x.zip").write_bytes(flipped)
    with pytest.raises(Refused, match="Bad CRC-32"):
        read(tmp_path / "x.zip")


def test_memory_is_bounded(tmp_path, monkeypatch):
    """Of files inside, by their sizes, and of the headers of a tar."""
    monkeypatch.setattr(archives, "LIMIT", 1000)
    large = {"a/1.png": bytes(1001)}
    for path in (pack(tmp_path / "x.tar.gz", large), pack(tmp_path / "x.zip", large)):
        with pytest.raises(Refused, match=rf"a/1\.png in {path} has 1,001 bytes, expected at most"):
            read(path)
    with pytest.raises(Refused, match="has 1,001 bytes"):
        read(unpack(tmp_path / "folder", large))
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 10**6
    with gzip.open(tmp_path / "header.tar.gz", "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT) + bytes(10**6))
    with pytest.raises(Refused, match=r"a header of 1,000,448 bytes"):
        read(tmp_path / "header.tar.gz")


def test_a_zip_that_is_larger_than_it_says(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", bytes(5000))
    data = path.read_bytes().replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little"))
    path.write_bytes(data)
    with pytest.raises(Refused):
        read(path)
