"""Data of one's own in files: CSV tables, folders of images."""

import csv as csv_format
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jaxtl.data import images
from jaxtl.data.dataset import Dataset
from jaxtl.data.embedded import TEST_FRACTION, fixed_splits
from jaxtl.data.splits import Splits
from jaxtl.data.streamed import Streamed, stream
from jaxtl.data.table import Call, Table
from jaxtl.paths import unknown

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
SHOWN_ERRORS = 5


def csv(
    path: str | os.PathLike,
    label: str,
    *,
    test: float | str | os.PathLike = TEST_FRACTION,
    classes: Iterable[str] | None = None,
    regression: bool = False,
    delimiter: str = ",",
) -> Splits:
    """Train and test of a table whose first line names the columns.

    Args:
        path: the file; one example a line.
        label: column of the labels. All other columns are inputs, float32 [features].
        test: a second file with the same columns, or the fraction of this one that is the test
            set (drawn once and for all, stratified).
        classes: names of the classes; by default those in the files, sorted. An empty label is a
            missing one.
        regression: labels are numbers to predict (float32), not names of classes.
        delimiter: what separates the cells.

    Raises:
        ValueError: on use, a file without rows or label column, cells that are not numbers (with
            line and column), or labels that are not among `classes`.
    """
    name, whole = Path(path).stem, isinstance(test, float)
    files = (str(path),) if whole else (str(path), str(test))
    names = None if classes is None else tuple(classes)
    calls = [Call(_csv, (file, files, label, names, regression, delimiter)) for file in files]
    if whole:
        return fixed_splits(name, calls[0], test)
    train, test = calls
    return Splits(train=Dataset(f"{name}.train", train), test=Dataset(f"{name}.test", test))


def _csv(
    file: str,
    files: tuple[str, ...],
    label: str,
    classes: tuple[str, ...] | None,
    regression: bool,
    delimiter: str,
) -> Table:
    """One of the files that share a label space."""
    read = {path: _cells(path, label, regression, delimiter) for path in files}
    headers = {path: features for path, (features, _, _) in read.items()}
    if len(set(headers.values())) > 1:
        raise ValueError(f"files with different columns: {headers}")
    _, inputs, labels = read[file]
    if regression:
        return Table(inputs, {"label": np.array([float(x or "nan") for x in labels], np.float32)})
    names = classes or tuple(sorted({x for _, _, found in read.values() for x in found if x}))
    for value in sorted(set(labels) - {*names, ""}):
        raise ValueError(f"{file}: {unknown('class', value, names)}")
    index = {name: i for i, name in enumerate(names)} | {"": -1}
    return Table(
        inputs, {"label": np.array([index[x] for x in labels], np.int32)}, {"label": names}
    )


def _cells(
    path: str, label: str, regression: bool, delimiter: str
) -> tuple[tuple[str, ...], np.ndarray, list[str]]:
    """Names of the features, inputs [n, features] float32, and the labels as they are written."""
    if not Path(path).is_file():
        raise ValueError(f"no file {path}")
    inputs, labels, problems = [], [], []
    with open(path, newline="") as file:
        lines = csv_format.reader(file, delimiter=delimiter, skipinitialspace=True)
        header = [name.strip() for name in next(lines, [])]
        if label not in header:
            raise ValueError(f"{path}: {unknown('column', label, header)}")
        for cells in filter(None, lines):
            at = f"line {lines.line_num}"
            if len(cells) != len(header):
                problems.append(f"{at} has {len(cells)} cells, the header {len(header)}")
                continue
            row = dict(zip(header, map(str.strip, cells), strict=True))
            bad = [
                c for c in header if (c != label or (regression and row[c])) and not _number(row[c])
            ]
            problems += [f"{at}, column {c!r}: {row[c]!r} is not a number" for c in bad]
            labels.append(row.pop(label))
            inputs.append([] if bad else [float(value) for value in row.values()])
    if problems:
        shown = "; ".join(problems[:SHOWN_ERRORS])
        more = f"; {len(problems) - SHOWN_ERRORS} more" if len(problems) > SHOWN_ERRORS else ""
        raise ValueError(f"{path}: {shown}{more}")
    if not inputs:
        raise ValueError(f"{path} has no rows")
    features = tuple(name for name in header if name != label)
    return features, np.array(inputs, np.float32), labels


def _number(text: str) -> bool:
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


def image_folder(
    path: str | os.PathLike,
    *,
    size: tuple[int, int] | None = None,
    classes: Iterable[str] | None = None,
    streamed: bool | None = None,
) -> Dataset:
    """Images (PNG, JPEG) in one folder for each class; other files are left alone.

    Args:
        path: the folder of the class folders.
        size: (height, width) that every image is resized to; they must share one size if None.
        classes: names of the class folders in order; by default all, sorted.
        streamed: decode the images of a batch when it is needed, not all beforehand; None: if they
            would take more than half of the machine's memory.

    Raises:
        ValueError: on use, if there is no such folder or image, a class folder is not among
            `classes`, an image cannot be read, or sizes differ.
    """
    names = None if classes is None else tuple(classes)
    size = None if size is None else tuple(size)
    return Dataset(Path(path).name, Call(_image_folder, (str(path), size, names, streamed)))


def _image_folder(
    path: str,
    size: tuple[int, int] | None,
    classes: tuple[str, ...] | None,
    streamed: bool | None,
) -> Table:
    if not Path(path).is_dir():
        raise ValueError(f"no folder {path}")
    folders = sorted(f.name for f in Path(path).iterdir() if f.is_dir() and f.name[0] != ".")
    names = classes or tuple(folders)
    for folder in folders:
        if folder not in names:
            raise ValueError(f"{path}: {unknown('class', folder, names)}")
    found, labels = [], []
    for i, name in enumerate(names):
        files = sorted(Path(path, name).rglob("*"))
        files = [str(file) for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        found += files
        labels += [i] * len(files)
    if not found:
        raise ValueError(f"{path} has no class folders with images {', '.join(IMAGE_SUFFIXES)}")
    shapes = [_readable(images.shape, file) for file in found]
    channels = max(shape[2] for shape in shapes)
    shape = size or images.one_shape({(*shape[:2], channels) for shape in shapes}, path)[:2]

    def read(rows: np.ndarray) -> np.ndarray:
        return np.stack([_readable(images.decode, found[i], channels, size) for i in rows])

    inputs = Streamed((len(found), *shape, channels), np.uint8, read)
    inputs = inputs if stream(streamed, inputs.nbytes, path) else inputs[:]
    return Table(inputs, {"label": np.array(labels, np.int32)}, {"label": names})


def _readable(function: Callable[..., Any], file: str, *arguments: Any) -> Any:
    try:
        return function(file, *arguments)
    except OSError as error:
        raise ValueError(f"cannot read the image {file}: {error}") from error
