"""A file is there as a whole, or as it was."""

import pytest

from jaxtl.files import NotWritten, atomically, replacing, write_text


def test_what_is_raised_while_writing_leaves_the_old_content_alone(tmp_path):
    path = tmp_path / "folder" / "file"
    write_text(path, "old")
    for writer in (atomically, replacing):
        with pytest.raises(ZeroDivisionError), writer(path) as partial:
            partial.write_text("half")
            raise ZeroDivisionError
        assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old" and partial.parent == path.parent
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "file" / "below"
    path.parent.write_text("")
    with pytest.raises(NotWritten) as error, replacing(path) as partial:
        partial.write_text("x")
    assert error.value.filename == str(path) and path.parent.read_text() == ""
