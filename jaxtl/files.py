"""Files as users name them."""

import os


def user_path(text: str | os.PathLike) -> str:
    """A path that a user gave: `~` and `~name` are home folders, empty stays empty.

    Raises:
        ValueError: nobody knows that home folder.
    """
    path = os.path.expanduser(os.fspath(text))
    if path.startswith("~"):
        raise ValueError(f"{text}: there is no home folder {path.split('/')[0]!r}; write it out")
    return path
