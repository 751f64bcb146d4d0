"""Which arrays of a file are which leaves of a model, and what does not fit."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxtl import paths
from jaxtl.pretrained.scheme import Entry, Scheme

# Finding close names takes long, and a file of another architecture lacks hundreds.
_HINTS = 20


class Fit(NamedTuple):
    """A file read by a scheme.

    Attributes:
        scheme: the names used.
        entries: {path: Entry} of what is wanted and has a name.
        leaves: {path: array} of what was found, in shape and type as wanted.
        done: {path: what was done to the array}, for the report.
        absent: {path: name that the file does not have}.
        problems: {path: what else keeps it from being read}.
    """

    scheme: Scheme
    entries: Mapping[str, Entry]
    leaves: dict[str, np.ndarray]
    done: dict[str, str]
    absent: dict[str, str]
    problems: dict[str, str]

    def report(self, file: Mapping[str, np.ndarray]) -> str:
        """What was loaded as it is, what was changed, and what is left over in the file."""
        groups: dict[str, list[str]] = {}
        for path, done in self.done.items():
            groups.setdefault(done, []).append(path)
        groups["unused in the file"] = self._unused(file)
        lines = [
            f"  {what} ({len(names)}): {', '.join(names) or 'none'}"
            for what, names in groups.items()
        ]
        return "\n".join((f"{len(self.leaves)} arrays by the names of {self.scheme.name}", *lines))

    def complaints(self, file: Mapping[str, np.ndarray]) -> list[str]:
        """A line for each leaf that was not found."""
        unused = self._unused(file)
        lines = [f"{path}: {problem}" for path, problem in self.problems.items()]
        for i, (path, name) in enumerate(self.absent.items()):
            near = ", ".join(paths.closest(name, unused, 2)) if i < _HINTS else ""
            lines.append(f"{path}: no {name} in the file{near and f'; closest there: {near}'}")
        return lines

    def _unused(self, file: Mapping[str, np.ndarray]) -> list[str]:
        used = {self.entries[path].name for path in self.leaves}
        ignored = self.scheme.ignored
        return [name for name in file if name not in used and not paths.matches(ignored, name)]


def fit(
    scheme: Scheme, head: str | None, wanted: Mapping[str, Any], file: Mapping[str, np.ndarray]
) -> Fit:
    """Looks for every wanted leaf.

    Args:
        scheme: names of the file.
        head: the head of the model that is the file's; other heads are not looked for.
        wanted: {path: anything with a shape and a dtype}.
        file: {name: array}.
    """
    known = [path for path in wanted if not _is_other_head(path, head)]
    found = Fit(scheme, dict(scheme.entries(known)), {}, {}, {}, {})
    for path, abstract in wanted.items():
        entry = found.entries.get(path)
        if entry is None and _is_other_head(path, head):
            found.problems[path] = "a new head: name it in `fresh`, or as `head` if the file has it"
        elif entry is None:
            found.problems[path] = f"has no name in {scheme.name}"
        elif entry.name not in file:
            found.absent[path] = entry.name
        else:
            try:
                leaf, found.done[path] = _leaf(scheme, path, entry, file, tuple(abstract.shape))
                found.leaves[path] = leaf.astype(abstract.dtype, copy=False)
            except _Mismatch as mismatch:
                found.problems[path] = str(mismatch)
    return found


class _Mismatch(Exception):
    """Why an array of the file is not a leaf."""


def _is_other_head(path: str, head: str | None) -> bool:
    return path.startswith("heads/") and path.split("/")[1] != head


def _leaf(
    scheme: Scheme,
    path: str,
    entry: Entry,
    file: Mapping[str, np.ndarray],
    shape: tuple[int, ...],
) -> tuple[np.ndarray, str]:
    """The array of a leaf of that shape, and what was done to get it."""
    name, layout, part, parts = entry
    array, done = file[name], layout.name or "as they are"
    theirs = f"{name} {list(array.shape)}"
    if parts > 1:
        if array.ndim == 0 or len(array) % parts:
            raise _Mismatch(f"file {theirs}, which does not divide into {parts}")
        array, done = np.split(array, parts)[part], f"cut out, {done}"
    try:
        array = layout.read(array)
    except ValueError:  # NumPy's, about the number of axes
        raise _Mismatch(f"file {theirs}, model {list(shape)}") from None
    if array.shape == shape:
        return array, done
    for pattern, adapt in scheme.adapt.items():
        if paths.matches([pattern], path):
            try:
                return adapt(array, shape), "adapted"
            except ValueError as error:
                raise _Mismatch(str(error)) from None
    raise _Mismatch(f"file {list(array.shape)} ({name}), model {list(shape)}")
