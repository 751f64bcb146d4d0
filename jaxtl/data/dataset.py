"""Datasets as lazy handles: a loader, transforms of the whole table, and rows drawn per seed.

Nothing is read before `table` or `rows` is asked for. Transforms keep the rows where they are and
subsets only select among them, so all subsets of a dataset share one copy of its inputs.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

import numpy as np

from jaxtl.data.columns import names_of
from jaxtl.data.steps import images, selections, text, transforms
from jaxtl.data.steps.selections import generator
from jaxtl.data.steps.transforms import name_of
from jaxtl.data.table import Call, Table, result_of
from jaxtl.form import AT_LEAST_0, AT_LEAST_1, Limit, checked

Count = Annotated[int, AT_LEAST_1]
Part = Annotated[float, Limit("in (0, 1)", lambda value: 0 < value < 1)]
Share = Annotated[float, Limit("in [0, 1]", lambda value: 0 <= value <= 1)]
Length = Annotated[int, Limit("at least 3", lambda value: value >= 3)]  # [CLS], a token and [SEP]


class Step(NamedTuple):
    """One operation of a dataset.

    Attributes:
        function: (table, *arguments) -> table or, if it `selects`,
            (table, rows, draw, *arguments) -> rows, with draw(*names) a generator of random
            numbers that depends on the seed, the selections so far and the names.
        copies: of a transform, how many rows it makes of each of n rows i: i, i + n, i + 2 n, ...
    """

    function: Callable[..., Any]
    arguments: tuple = ()
    selects: bool = False
    copies: int = 1


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A lazy handle of labelled examples; operations return new handles.

    Handles are equal if they load the same and do the same to it. Random choices depend on the
    seed, the chain of subset operations and, for `few`, the class's name.

    Attributes:
        name: for messages; says where it comes from and what was done to it.
        load: call that returns the `Table`.
        steps: what is done to it, in order.
        parts: of one that `together` made, the datasets whose rows it begins with, per seed.
    """

    name: str
    load: Call
    steps: tuple[Step, ...] = ()
    parts: tuple["Dataset", ...] = ()

    def __repr__(self) -> str:
        return f"Dataset({self.name})"

    def table(self) -> Table:
        """All examples, transformed; cached until the files they come from change, but for a run.

        `rows` says which ones belong to a seed. Nobody may write to what a table holds.

        Raises:
            ValueError: the data cannot be read or a transform does not fit them.
        """
        with self._named_errors():
            return result_of(self._table_call())

    def rows(self, seed: int) -> np.ndarray:
        """Rows of the table that this seed uses, [m] int64, ascending, the same in every arm.

        Raises:
            ValueError: there are not the examples asked for.
        """
        rows, size, done, chain = None, 0, (), ""
        with self._named_errors():
            for step in (*self.steps, Step(selections.everything, selects=True)):
                if not step.selects:
                    done += (step,)
                    if rows is not None:
                        rows = np.concatenate([rows + size * i for i in range(step.copies)])
                    size *= step.copies
                    continue
                table = result_of(_table_call(self.load, done))
                if rows is None:
                    rows, size = self._first_rows(seed, len(table)), len(table)
                if len(table) != size:
                    raise ValueError(
                        f"a map made {len(table)} rows of {size} after a subset was selected; "
                        "put it before"
                    )
                chain += "/" + step.function.__name__
                draw = functools.partial(generator, seed, chain)
                rows = np.sort(step.function(table, rows, draw, *step.arguments))
        return rows

    def _first_rows(self, seed: int, count: int) -> np.ndarray:
        """The rows that a seed uses before anything is selected."""
        if not self.parts:
            return np.arange(count)
        sizes = [len(part.table()) for part in self.parts]
        starts = np.cumsum([0, *sizes[:-1]])
        rows = [s + part.rows(seed) for s, part in zip(starts, self.parts, strict=True)]
        return np.concatenate(rows)

    def history(self) -> Iterator[tuple[Step, Table, Table]]:
        """(transform, the table before it, the table after it), in order, subsets left out."""
        tables = [
            result_of(_table_call(self.load, self.table_steps[:i]))
            for i in range(len(self.table_steps) + 1)
        ]
        return zip(self.table_steps, tables[:-1], tables[1:], strict=True)

    @property
    def table_steps(self) -> tuple[Step, ...]:
        """The steps that are no subsets."""
        return tuple(step for step in self.steps if not step.selects)

    def class_names(self, column: str = "label") -> tuple[str, ...]:
        """Names of the classes; empty if the column has none."""
        table = self.table()
        return table.names(column) if column in table.classes else ()

    # Subsets.

    @checked
    def classes(self, keep: Sequence[int | str], column: str = "label") -> Self:
        """Only these classes (indices or names), renumbered 0, 1, ... in the order given."""
        keep = tuple(keep)
        relabelled = self._then(
            f"classes({_brief(keep)})", transforms.relabel_classes, keep, column
        )
        return relabelled._then("", selections.with_label, column, selects=True)

    @checked
    def only(self, keep: Sequence[int | str], column: str = "label") -> Self:
        """Only these classes (indices or names), which keep their numbers and names."""
        keep = tuple(keep)
        return self._then(f"only({_brief(keep)})", selections.only, keep, column, selects=True)

    @checked
    def few(self, k: Count, column: str = "label") -> Self:
        """k examples of each class, drawn per seed; those of a smaller k are among them."""
        return self._then(f"few({k})", selections.few, k, column, selects=True)

    @checked
    def take(self, n: Count) -> Self:
        """n examples, drawn per seed; those of a smaller n are among them."""
        return self._then(f"take({n})", selections.take, n, selects=True)

    @checked
    def split(self, fraction: Part) -> tuple[Self, Self]:
        """Two disjoint parts, drawn per seed; the first has `fraction` of the examples."""
        first, second = (
            self._then(f"split({fraction})[{part}]", selections.split, fraction, part, selects=True)
            for part in (0, 1)
        )
        return first, second

    @checked
    def slice(
        self, start: int | None = None, stop: int | None = None, step: Count | None = None
    ) -> Self:
        """Examples in the order of the table, as `list[start:stop:step]`.

        `[dataset.slice(i, None, 6) for i in range(6)]` deals them out to six datasets.
        """
        places = (start, stop) if step is None else (start, stop, step)
        label = f"slice({', '.join(map(str, places))})"
        return self._then(label, selections.slice, *places, selects=True)

    # Transforms.

    def map(self, fn: Callable[..., Table], *arguments: Any) -> Self:
        """Any function of one's own, (table, *arguments) -> table; it must not change its input.

        Handles are equal, and share the result, only if `fn` and the (hashable) arguments are.
        After a subset was selected the number of rows must stay the same. A function that makes
        each row of its own inputs alone prepares raw rows for `jaxtl.load(...).predict` as well.
        The path of a file that it reads should be an argument: once that changes, the result does.
        """
        return self._then(f"map({name_of(fn)})", fn, *arguments)

    def relabel(
        self, column: str, fn: Callable[[Table], np.ndarray], classes: Iterable[str] | None = None
    ) -> Self:
        """A label column computed from the table.

        Args:
            column: its name; an existing column is replaced.
            fn: table -> [n, ...] integers (with `classes`) or floats. A row without a label in one
                of the columns that it reads stays without; `map` can fill it in.
            classes: names of the classes, None for a column of numbers.
        """
        classes = None if classes is None else names_of(classes, column)
        return self._then(f"relabel({column})", transforms.relabel, column, fn, classes)

    @checked
    def hide(self, column: str, fraction: Share) -> Self:
        """Missing labels (-1 or NaN) for a fraction of the rows, the same ones for every seed.

        They are drawn from a fixed generator that depends on the column and the number of rows.
        """
        return self._then(f"hide({column}, {fraction})", transforms.hide, column, fraction)

    def standardize(self, like: "Dataset | None" = None) -> Self:
        """Zero mean, unit variance for each position of the inputs, in float32.

        The statistics are those of the whole table of `like` (this dataset if None), whatever
        rows are selected from it. What is constant there becomes 0. Token ids are refused.
        """
        return self._then("standardize()", transforms.standardize, (like or self)._table_call())

    @checked
    def quarter_turns(self, column: str = "label") -> Self:
        """Four times the examples and classes: each class turned by 0, 90, 180, 270 degrees.

        The new classes are called "<class> turned by 90" and so on; turns go counter-clockwise. Few
        characters become many so for few-shot learning (Santoro et al., 2016, arXiv:1605.06065).
        Subsets may be selected before or after.

        Raises:
            ValueError: on use, images are not square, or there are none.
        """
        step = Step(transforms.quarter_turns, (column,), copies=transforms.TURNS)
        name = f"{self.name}.quarter_turns()"
        return dataclasses.replace(self, name=name, steps=(*self.steps, step))

    @checked
    def resize(self, size: images.ImageSize) -> Self:
        """Images of this (height, width), see `images.resize`."""
        return self._images("resize({}x{})".format(*size), images.resize, tuple(size))

    def grayscale(self) -> Self:
        """Images of one channel, see `images.grayscale`."""
        return self._images("grayscale()", images.grayscale)

    def rgb(self) -> Self:
        """Images of three channels, see `images.rgb`."""
        return self._images("rgb()", images.rgb)

    @checked
    def pad(self, pixels: Annotated[int, AT_LEAST_0]) -> Self:
        """Images with a black frame."""
        return self._images(f"pad({pixels})", images.pad, pixels)

    @checked
    def center_crop(self, size: images.ImageSize) -> Self:
        """The middle (height, width) of each image."""
        return self._images("center_crop({}x{})".format(*size), images.center_crop, tuple(size))

    @checked
    def tokenize(
        self, tokenizer: str | os.PathLike, length: Length, *, lowercase: bool = True
    ) -> Self:
        """Texts as WordPieces: {"ids", "mask"}, both [n, length] int32, the mask 1 for a token.

        A text becomes [CLS] ... [SEP], is cut to `length` and filled up with [PAD]; the log says
        how many are cut.

        Args:
            tokenizer: of BERT's kind, a `tokenizer.json` or a `vocab.txt` with a token a line.
            length: of all texts, in tokens, at least 3.
            lowercase: what to do with a `vocab.txt`; strips accents too. A `tokenizer.json` says
                that itself.

        Raises:
            ValueError: a length under 3; on use, a file that is none or declares another kind, and
                inputs that are not one text an example.
        """
        if isinstance(tokenizer, Path):  # other paths may lead to a file that is fetched on use
            tokenizer = str(tokenizer)
        arguments = (tokenizer, int(length), bool(lowercase))
        return self._then(f"tokenize({length})", text.tokenize, *arguments)

    def map_images(self, fn: Callable[..., np.ndarray], *arguments: Any) -> Self:
        """(images [n, height, width, channels], *arguments) -> images, for all image inputs."""
        return self._images(f"map_images({name_of(fn)})", fn, *arguments)

    def match_classes(self, column: str, names: tuple[str, ...], matched: str) -> Self:
        """One more label column, `matched`: the classes of `column`, numbered by these names."""
        return self._then("", transforms.match_classes, column, names, matched)

    def _images(self, label: str, fn: Callable[..., np.ndarray], *arguments: Any) -> Self:
        return self._then(label, transforms.map_images, fn, arguments)

    def _then(self, label: str, function: Callable, *arguments: Any, selects: bool = False) -> Self:
        name = f"{self.name}.{label}" if label else self.name
        step = Step(function, arguments, selects)
        try:
            hash(step)
        except TypeError as error:
            raise ValueError(f"{name}: arguments must be hashable ({error})") from None
        return dataclasses.replace(self, name=name, steps=(*self.steps, step))

    def _table_call(self) -> Call:
        return _table_call(self.load, self.table_steps)

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            if str(error).startswith("dataset "):
                raise
            raise ValueError(f"dataset {self.name}: {error}") from error


def _table_call(load: Call, steps: tuple[Step, ...]) -> Call:
    return functools.reduce(lambda before, step: Call(_transform, (before, step)), steps, load)


def _transform(before: Call, step: Step) -> Table:
    table = step.function(result_of(before), *step.arguments)
    if not isinstance(table, Table):
        raise ValueError(
            f"{name_of(step.function)} must return a Table, it returned a {type(table).__name__}"
        )
    return table


def _brief(values: tuple) -> str:
    shown = ", ".join(map(str, values[:10]))
    return f"{shown}, ..." if len(values) > 10 else shown
