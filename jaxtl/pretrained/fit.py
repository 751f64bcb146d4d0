"""Which arrays of a file are which leaves of a model, and what does not fit."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtl import paths
from jaxtl.pretrained import foreign
from jaxtl.pretrained.archives import shorten
from jaxtl.pretrained.names.scheme import Entry, Mismatch, Scheme

# Finding close names takes long, and a file of another architecture lacks hundreds.
_HINTS, _COMPARISONS = 20, 20_000

_OWN_HEAD = r"heads/[^/]+/(kernel|bias)"  # of a model that `FileWeights.save` wrote


class Fit(NamedTuple):
    """A file read by a scheme.

    Attributes:
        scheme: the names used.
        entries: {path: Entry} of what is wanted and has a name.
        leaves: {path: array} of what was found, in shape and type as wanted.
        changes: {path: what was done to the array}, for the report.
        absent: {path: name that the file does not have}.
        problems: {path: what else keeps it from being read}.
        file: {name: array}, all of them.
        prefix: what the names of the file have in front of those.
        fresh: names of leaves that the model has and does not want, None if that is not known.
    """

    scheme: Scheme
    entries: Mapping[str, Entry]
    leaves: dict[str, np.ndarray]
    changes: dict[str, str]
    absent: dict[str, str]
    problems: dict[str, str]
    file: Mapping[str, np.ndarray]
    prefix: str
    fresh: frozenset[str] | None

    def report(self) -> str:
        """What was loaded as it is, what was changed, and what is left over in the file."""
        groups: dict[str, list[str]] = {}
        for path, change in self.changes.items():
            groups.setdefault(change, []).append(path)
        groups["unused in the file"] = [shorten(name, 200) for name in self._unused()]
        behind = f", behind {self.prefix!r}" if self.prefix else ""
        lines = [f"{len(self.leaves)} arrays by the names of {self.scheme.name}{behind}"]
        for what, names in groups.items():
            lines.append(f"  {what} ({len(names)}): {', '.join(names) or 'none'}")
        return "\n".join(lines)

    def complaints(self) -> list[str]:
        """A line for each leaf that was not found, and for what the file's other arrays say."""
        unused = self._unused()
        lines = [f"{path}: {problem}" for path, problem in self.problems.items()]
        hints = min(_HINTS, _COMPARISONS // max(len(unused), 1))
        for i, (path, name) in enumerate(self.absent.items()):
            near = shorten(", ".join(paths.closest(name, unused, 2)) if i < hints else "", 200)
            lines.append(f"{path}: no {name} in the file{near and f'; closest there: {near}'}")
        if prefix := self._common_prefix():
            lines.append(f"the names stand behind {prefix!r}: give it as `prefix`")
        groups = foreign.meanings(unused, self._used())
        return [*lines, *foreign.lines({m: names for m, names in groups.items() if m})]

    def leftover(self, unused: Sequence[str]) -> list[str]:
        """A line for each kind of arrays that the model leaves out and that are not named.

        Args:
            unused: patterns of names.

        Raises:
            ValueError: a pattern matches nothing, or what is used.
        """
        if self.fresh is None:
            return []
        named, used = paths.select(unused, self.file, "array of the file"), self._used()
        if both := sorted(named & used):
            raise ValueError(
                f"`unused` {tuple(unused)} matches what the model reads: {', '.join(both[:10])}"
            )
        heads = (*self.scheme.heads, _OWN_HEAD)
        rest = [
            name
            for name in self._unused()
            if name not in named | self.fresh and not paths.matches(heads, name)
        ]
        return foreign.lines(foreign.meanings(rest, used | self.fresh))

    def _used(self) -> set[str]:
        return {self.entries[path].name for path in self.leaves}

    def _unused(self) -> list[str]:
        used, ignored = self._used(), self.scheme.ignored
        return [n for n in self.file if n not in used and not paths.matches(ignored, n)]

    def _common_prefix(self) -> str:
        """What the file has in front of most names that it seems to lack."""
        prefixes = collections.Counter(
            name.removesuffix(absent)
            for absent in self.absent.values()
            for name in self.file
            if name.endswith(f".{absent}")
        )
        best, count = max(prefixes.items(), key=lambda item: item[1], default=("", 0))
        return best if 2 * count > len(self.absent) else ""


def fit(
    scheme: Scheme,
    head: str | None,
    wanted: Mapping[str, Any],
    file: Mapping[str, np.ndarray],
    prefix: str = "",
) -> Fit:
    """Looks for every wanted leaf.

    Args:
        scheme: names of the file.
        head: the head of the model that is the file's; other heads are not looked for.
        wanted: {path: anything with a shape and a dtype}, a `Wanted` if the model has more.
        file: {name: array}.
        prefix: is taken off the names that have it.
    """
    file = {name.removeprefix(prefix): array for name, array in file.items()}
    others, fresh = getattr(wanted, "others", ()), None  # a plain mapping has no others
    if others is not None:
        fresh = frozenset(entry.name for entry in scheme.entries(others).values())
    entries = scheme.entries(path for path in wanted if not _is_other_head(path, head))
    leaves, changes, absent, problems = {}, {}, {}, {}
    for path, abstract in wanted.items():
        entry = entries.get(path)
        if _is_other_head(path, head):
            problems[path] = "a new head: name it in `fresh`, or as `head` if the file has it"
        elif entry is None:
            problems[path] = f"has no name in {scheme.name}"
        elif entry.name not in file:
            absent[path] = entry.name
        else:
            try:
                leaf, change = _leaf(scheme, path, entry, file[entry.name], abstract.shape)
                leaves[path] = convert(leaf, entry.name, np.dtype(abstract.dtype))
                changes[path] = change
            except Mismatch as mismatch:
                problems[path] = str(mismatch)
    return Fit(scheme, entries, leaves, changes, absent, problems, file, prefix, fresh)


def _is_other_head(path: str, head: str | None) -> bool:
    return path.startswith("heads/") and path.split("/")[1] != head


def convert(array: np.ndarray, name: str, dtype: np.dtype) -> np.ndarray:
    """An array in the type that is wanted, as long as that loses nothing but digits."""
    kinds = "f" if jax.dtypes.issubdtype(dtype, np.floating) else "iub"
    if array.dtype.kind not in kinds:
        raise Mismatch(f"file {array.dtype} ({name}), model {dtype}")
    with np.errstate(over="ignore"):  # is counted below
        leaf = array.astype(dtype, copy=False)
    if kinds == "f" and (count := int(np.sum(~np.isfinite(leaf)))):
        raise Mismatch(f"{count} of {leaf.size} numbers of {name} are not finite as {dtype}")
    return leaf


def _leaf(
    scheme: Scheme, path: str, entry: Entry, array: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, str]:
    """A leaf of that shape from an array of the file, and what was done to get it."""
    name, layout, part, parts = entry
    change, given = layout.name or "as they are", f"{name} {list(array.shape)}"
    if parts > 1:
        if array.ndim == 0 or len(array) % parts:
            raise Mismatch(f"file {given}, which does not divide into {parts}")
        array, change = np.split(array, parts)[part], f"cut out, {change}"
    try:
        array = layout.read(array)
    except Mismatch:
        raise
    except (ValueError, IndexError, TypeError):  # NumPy's, about the number of axes
        raise Mismatch(f"file {given}, model {list(shape)}") from None
    if array.shape == shape:
        return array, change
    for pattern, adapt in scheme.adapt.items():
        if paths.matches([pattern], path):
            try:
                return adapt(array, shape), "adapted"
            except ValueError as error:
                raise Mismatch(str(error)) from None
    raise Mismatch(f"file {list(array.shape)} ({name}), model {list(shape)}")
