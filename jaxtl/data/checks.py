"""What can be wrong with a dataset before any work is done on it."""

import hashlib
import logging
import math

import jax
import numpy as np

from jaxtl.data.dataset import Dataset
from jaxtl.data.streamed import CHUNK, Streamed

logger = logging.getLogger(__name__)


def validate(dataset: Dataset) -> None:
    """Check a dataset's table.

    Raises:
        ValueError: no rows; inputs that are not finite, or that float32 cannot tell apart; integer
            labels outside -1 ... classes - 1; infinite float labels (NaN stands for a missing one).
            Names the array, the number of bad rows and the first of them. Inputs that are streamed
            are not read.
    """
    table = dataset.table()
    if not len(table):
        raise ValueError(f"dataset {dataset.name} is empty")
    bad = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(table.inputs)[0]:
        if isinstance(leaf, Streamed):
            logger.info("dataset %s: streamed inputs are not searched for NaN", dataset.name)
        elif np.issubdtype(leaf.dtype, np.floating):
            bad[f"inputs{jax.tree_util.keystr(path)} not finite"] = ~np.isfinite(leaf)
        if leaf.dtype == np.float64:
            raise ValueError(
                f"dataset {dataset.name}: inputs{jax.tree_util.keystr(path)} have columns that "
                "vary by too little for float32, around a large value: `standardize()` them, or "
                "subtract that value"
            )
    for column, labels in table.labels.items():
        if column in table.classes:
            last = len(table.classes[column]) - 1
            name = f"label column {column!r} outside the label space 0 to {last} (-1: missing)"
            bad[name] = (labels < -1) | (labels > last)
        else:
            bad[f"label column {column!r} infinite"] = np.isinf(labels)
    problems = []
    for name, wrong in bad.items():
        rows = np.flatnonzero(wrong.reshape(len(table), -1).any(1))
        if len(rows):
            problems.append(f"{name} in {len(rows)} of {len(table)} rows, first in row {rows[0]}")
    if problems:
        raise ValueError(f"dataset {dataset.name}: {'; '.join(problems)}")


def overlap(a: Dataset, b: Dataset, seed: int = 0) -> np.ndarray:
    """Rows of b's table, among those of the seed, whose inputs stand byte for byte in a. int64.

    Reads all inputs of those rows, chunk by chunk.
    """
    known = set(_digests(a, a.rows(seed)))
    rows = b.rows(seed)
    return rows[np.fromiter((d in known for d in _digests(b, rows)), bool, len(rows))]


def _digests(dataset: Dataset, rows: np.ndarray) -> list[bytes]:
    """One hash for each row, of the values, shapes and dtypes of its inputs."""
    leaves = jax.tree.leaves(dataset.table().inputs)
    kinds = repr([(leaf.dtype.str, leaf.shape[1:]) for leaf in leaves]).encode()
    digests = []
    size = max(1, CHUNK // max(1, sum(math.prod(leaf.shape[1:]) for leaf in leaves)))
    for start in range(0, len(rows), size):
        blocks = [leaf[rows[start : start + size]] for leaf in leaves]
        for values in zip(*blocks, strict=True):
            digest = hashlib.blake2b(kinds, digest_size=16)
            for value, leaf in zip(values, leaves, strict=True):
                digest.update(repr(value).encode() if leaf.dtype == object else value.tobytes())
            digests.append(digest.digest())
    return digests
