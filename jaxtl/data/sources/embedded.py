"""Small datasets that need no download: the tables that scikit-learn ships.

The files are read from the installed package; scikit-learn itself is not imported. Train and test
are fixed: a fifth of each class (of all rows, for values) is the test set.
"""

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxtl.data.dataset import Dataset
from jaxtl.data.splits import Splits
from jaxtl.data.table import Call, Table, read_from, result_of

TEST_FRACTION = 0.2


def digits() -> Splits:
    """1,797 handwritten digits, uint8 [8, 8, 1] (the original 0..16 times 255/16), ten classes.

    E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI repository, 1998.
    """
    return fixed_splits("digits", Call(_digits))


def iris() -> Splits:
    """150 flowers, float32 [4] in cm, classes setosa, versicolor and virginica (Fisher, 1936)."""
    return fixed_splits("iris", Call(_labelled, ("iris.csv",)))


def wine() -> Splits:
    """178 wines, float32 [13] chemical measurements, three cultivars (UCI repository, 1991)."""
    return fixed_splits("wine", Call(_labelled, ("wine_data.csv",)))


def breast_cancer() -> Splits:
    """569 tumours, float32 [30], classes malignant and benign (Wisconsin diagnostic, UCI, 1995)."""
    return fixed_splits("breast_cancer", Call(_labelled, ("breast_cancer.csv",)))


def diabetes() -> Splits:
    """442 patients, float32 [10] raw measurements, label: disease progression after one year.

    B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, "Least angle regression", 2004.
    """
    return fixed_splits("diabetes", Call(_diabetes))


def fixed_splits(name: str, load: Call, test_fraction: float = TEST_FRACTION) -> Splits:
    """Train and test of one table, drawn once and for all.

    Stratified by the first label column, if that holds classes.
    """

    def part(split: str) -> Dataset:
        call = Call(_part, (load, test_fraction, split == "test"))
        return Dataset(f"{name}.{split}", call)

    return Splits(train=part("train"), test=part("test"))


def _part(load: Call, test_fraction: float, is_test: bool) -> Table:
    table = result_of(load)
    rng, first = np.random.default_rng(0), next(iter(table.labels), None)
    groups = table.labels[first] if first in table.classes else np.zeros(len(table), int)
    in_test = np.zeros(len(table), bool)
    for value in np.unique(groups):
        rows = rng.permutation(np.flatnonzero(groups == value))
        count = min(max(1, round(test_fraction * len(rows))), len(rows) - 1)  # one for each part
        in_test[rows[:count]] = True
    return table.select(in_test == is_test)


def _digits() -> Table:
    rows = _read("digits.csv.gz", ",")
    images = np.rint(rows[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return _classified(images, rows[:, -1], map(str, range(10)))


def _diabetes() -> Table:
    inputs, target = _read("diabetes_data_raw.csv.gz"), _read("diabetes_target.csv.gz")
    return Table(inputs.astype(np.float32), {"label": target.astype(np.float32)})


def _labelled(name: str) -> Table:
    """A csv whose first line holds the counts and the class names, the last column the class."""
    with _file(name).open() as file:
        names = file.readline().strip().split(",")[2:]
        rows = np.loadtxt(file, delimiter=",")
    return _classified(rows[:, :-1].astype(np.float32), rows[:, -1], names)


def _classified(inputs: np.ndarray, labels: np.ndarray, names: Iterable[str]) -> Table:
    return Table(inputs, {"label": labels.astype(np.int32)}, {"label": tuple(names)})


def _read(name: str, delimiter: str | None = None) -> np.ndarray:
    return np.loadtxt(_file(name), delimiter=delimiter)  # unpacks what ends in .gz


def _file(name: str) -> Path:
    path = Path(importlib.util.find_spec("sklearn").origin).parent / "datasets" / "data" / name
    read_from([path])
    return path
