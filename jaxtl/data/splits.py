"""The splits of a dataset by name."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from jaxtl.data.dataset import Dataset
from jaxtl.paths import unknown


def _each(method: Callable[..., Dataset]) -> Callable[..., "Splits"]:
    @functools.wraps(method)
    def apply(self: "Splits", *args: Any, **kwargs: Any) -> "Splits":
        return self.each(lambda dataset: method(dataset, *args, **kwargs))

    return apply


class Splits(Mapping[str, Dataset]):
    """Datasets by split name, also as attributes; dataset operations apply to each of them.

        Splits(train=..., test=...).resize((16, 16)).train

    Raises:
        ValueError: on access to a split that does not exist, with the closest names.
    """

    def __init__(self, **datasets: Dataset):
        self._find = datasets.__getitem__
        self._names = lambda: tuple(datasets)

    @classmethod
    def lazy(cls, find: Callable[[str], Dataset], names: Callable[[], tuple[str, ...]]) -> Self:
        """Splits that are found by name when asked for; KeyError of `find`: there is none."""
        splits = cls()
        splits._find, splits._names = find, names
        return splits

    def __getitem__(self, name: str) -> Dataset:
        try:
            return self._find(name)
        except KeyError:
            raise ValueError(unknown("split", name, self)) from None

    def __getattr__(self, name: str) -> Dataset:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __repr__(self) -> str:
        return f"Splits({', '.join(self)})"

    def each(self, transform: Callable[[Dataset], Dataset]) -> "Splits":
        """The splits, transformed."""
        return Splits.lazy(lambda name: transform(self[name]), self._names)

    def standardize(self, like: "Splits | Dataset | None" = None) -> "Splits":
        """`Dataset.standardize` with the same statistics for all splits.

        Args:
            like: the splits, whose train split counts, or the dataset that the statistics are of;
                None for these splits.
        """
        like = self if like is None else like
        return self.each(
            lambda d: d.standardize(like["train"] if isinstance(like, Splits) else like)
        )

    classes = _each(Dataset.classes)
    only = _each(Dataset.only)
    few = _each(Dataset.few)
    map = _each(Dataset.map)
    map_images = _each(Dataset.map_images)
    relabel = _each(Dataset.relabel)
    hide = _each(Dataset.hide)
    quarter_turns = _each(Dataset.quarter_turns)
    resize = _each(Dataset.resize)
    grayscale = _each(Dataset.grayscale)
    rgb = _each(Dataset.rgb)
    pad = _each(Dataset.pad)
    center_crop = _each(Dataset.center_crop)
    tokenize = _each(Dataset.tokenize)
