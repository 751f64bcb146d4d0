"""Originals by hand and by download, and what is told when neither brings them."""

import hashlib
import http.server
import threading

import pytest

from jaxtl.data.prepared import preparation
from jaxtl.data.prepared.builders.originals import Original, Refused, obtain

CONTENT = b"published" * 1000


def sums(content):
    return (f"md5:{hashlib.md5(content).hexdigest()}",)


@pytest.fixture(scope="module")
def server():
    """An address that serves /whole, and /short, whose connection ends before its length."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path not in ("/whole", "/short"):
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[: None if self.path == "/whole" else 500])

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://localhost:{httpd.server_port}"
        httpd.shutdown()


def original(url="", **kwargs):
    return Original("file.bin", "https://page", url, **kwargs)


def refused(manual, *originals):
    with pytest.raises(Refused) as error:
        obtain("letters", dict(enumerate(originals)), manual)
    assert not list(manual.rglob("*.tmp")) and "\n" not in str(error.value)
    return str(error.value)


def test_a_download_is_checked_and_found_again(tmp_path, server):
    whole = original(f"{server}/whole", sums=sums(CONTENT), size=len(CONTENT))
    for _ in range(2):
        (path,) = obtain("letters", {"a": whole}, tmp_path).values()
        assert path == tmp_path / "letters" / "file.bin" and path.read_bytes() == CONTENT
        whole = original("http://localhost:9/", sums=sums(CONTENT))  # not asked again
    path.rename(tmp_path / "file.bin")  # where TFDS has originals, too
    assert obtain("letters", {"a": whole}, tmp_path) == {"a": tmp_path / "file.bin"}


def test_a_mirror_helps_out(tmp_path, server):
    wanted = original(f"{server}/none", sums=sums(CONTENT), mirrors=(f"{server}/whole",))
    (path,) = obtain("letters", {"a": wanted}, tmp_path).values()
    assert path.read_bytes() == CONTENT
    path.unlink()
    message = refused(tmp_path, original(f"{server}/none", mirrors=(f"{server}/short",)))
    assert f"{server}/none (its server answers 404" in message and f"{server}/short (" in message


@pytest.mark.parametrize("path", ["whole", "short", "none"])
def test_a_download_that_brings_something_else_leaves_nothing(tmp_path, server, path):
    wanted = original(f"{server}/{path}", sums=sums(b"other"))
    message = refused(tmp_path / "manual", wanted)
    assert not (tmp_path / "manual" / "letters").exists()
    if path == "whole":
        assert f"what {server}/whole sends is not the file.bin that was published" in message
        assert all(text in message for text in (*sums(b"other"), *sums(CONTENT), "https://page"))
    else:
        reason = {"short": "IncompleteRead", "none": "its server answers 404 Not Found"}[path]
        assert f"cannot download {server}/{path} (" in message and reason in message
        assert f"get file.bin from https://page; put it into {tmp_path}/manual/letters" in message


def test_any_published_sum_will_do(tmp_path):
    file = tmp_path / "file.bin"
    file.write_bytes(CONTENT)
    sha1 = f"sha1:{hashlib.sha1(CONTENT).hexdigest()}"
    obtain("letters", {0: original(sums=("md5:0", sha1))}, tmp_path)
    message = refused(tmp_path, original(sums=("md5:0", "sha1:1")))
    assert f"{sums(CONTENT)[0]}, {sha1}, expected md5:0 or sha1:1" in message


def test_without_a_sum_the_size_is_checked(tmp_path, caplog):
    file = tmp_path / "file.bin"
    file.write_bytes(CONTENT)
    with caplog.at_level("INFO", logger="jaxtl"):
        obtain("letters", {0: original(size=9000)}, tmp_path)
    assert "no sum of it is published, its size agrees; its examples are counted" in caplog.text
    assert "9,000 bytes, expected 9,001" in refused(tmp_path, original(size=9001))


def test_one_message_for_all_that_is_missing(tmp_path):
    """Before anything is downloaded."""
    by_hand = [Original(f"{name}.zip", "https://page") for name in ("a", "b")]
    other = (Original("c.zip", "https://c"), Original("d.zip", "https://d"))
    message = refused(tmp_path, original("http://localhost:9/"), *by_hand, other)
    assert message == (
        "get a.zip and b.zip from https://page; c.zip from https://c or d.zip from https://d; put "
        f"them into {tmp_path}/letters. Then prepare it again"
    )
    refused(tmp_path, original("http://localhost:9/"))


def test_what_was_begun_is_removed_and_nothing_else(tmp_path):
    kept = [
        "letters/1.0.0/dataset_info.json",
        "letters/incomplete.ABC_1.0.0/of-another-process",
        "downloads/manual/letters/mine.zip",
        "downloads/manual/letters/.theirs.zip.1.tmp",
    ]
    begun = [
        "letters/incomplete.DEF_1.0.0/letters-train.array_record-00000-of-00001",
        "letters/small/incomplete.DEF_1.0.0/letters-train.array_record-00000-of-00001",
        "letters/.config/metadata.json",
        "downloads/manual/letters/.mine.tar.2.tmp",
        "downloads/letters/letters.zip.tmp.1a2b/letters.zip",
    ]

    def write(names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

    write(kept)
    before = set(tmp_path.rglob("*"))
    discard = preparation.discarding("letters/small", tmp_path)
    write(begun)
    discard()
    assert set(tmp_path.rglob("*")) == before
