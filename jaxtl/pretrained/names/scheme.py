"""Names: where each of our parameters stands in a published file, and in which layout."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np


class Mismatch(ValueError):
    """Why an array of a file is not a leaf, as the end of a message."""


class Layout(NamedTuple):
    """How an array is arranged in a file.

    Attributes:
        read: theirs -> ours; raises ValueError for an array of another rank, `Mismatch` to say why.
        write: ours -> theirs, its inverse.
        name: for the report, such as `transposed`; empty if nothing is done.
    """

    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]
    name: str = ""


def same(array: np.ndarray) -> np.ndarray:
    return array


SAME = Layout(same, same)
DENSE = Layout(np.transpose, np.transpose, "transposed")
"""[out, in] of PyTorch's Linear <-> [in, out]."""
CONV = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1), "OIHW to HWIO")
"""[out, in / groups, height, width] of PyTorch's Conv2d <-> [height, width, in / groups, out]."""


class Entry(NamedTuple):
    """Where a leaf stands in a file.

    Attributes:
        name: of the array in the file.
        layout: of the leaf, after it is cut out.
        part, parts: the leaf is this one of so many equal parts of the array's first axis, as in a
            fused projection of queries, keys and values.
    """

    name: str
    layout: Layout = SAME
    part: int = 0
    parts: int = 1


class Scheme(NamedTuple):
    """One project's names for an architecture.

    Attributes:
        name: of the project, for messages.
        entry: path of a leaf -> Entry; None for one that has no name in that project.
        ignored: patterns of names in the file that no model reads, such as counters.
        adapt: {pattern of paths: (array in our layout, wanted shape) -> array of that shape} for
            leaves whose shape may differ, such as position embeddings.
        heads: patterns of the names of the file's classifiers and pretraining heads, which a model
            may leave out. Any other array that a model does not read is an error.
        config: {key of a `config.json` beside the file: the values that fit the architecture}.
        places: name of an array in the file -> {path of a leaf that is read from it: Entry}.
    """

    name: str
    entry: Callable[[str], Entry | None]
    ignored: tuple[str, ...] = ()
    adapt: Mapping[str, Callable[[np.ndarray, tuple[int, ...]], np.ndarray]] = {}
    heads: tuple[str, ...] = ()
    config: Mapping[str, tuple[Any, ...]] = {}
    places: Callable[[str], dict[str, Entry]] = lambda name: {}

    def entries(self, paths: Iterable[str]) -> dict[str, Entry]:
        """{path: Entry} of the leaves that have a name in that project."""
        entries = {path: self.entry(path) for path in paths}
        return {path: entry for path, entry in entries.items() if entry is not None}
