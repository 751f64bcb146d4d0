"""What is done to rows before a model reads them, written down for where the data are not.

A run's directory has it in `preprocessing.json`, and the files which that names in
`preprocessing/`: statistics of `standardize`, tokenizers.
"""

import dataclasses
import functools
import hashlib
import io
import logging
import operator
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtl.data import Dataset, Table
from jaxtl.data.arrays import is_image
from jaxtl.data.dataset import Step
from jaxtl.data.steps import text, traceable, transforms
from jaxtl.data.steps.one_hot import one_hot
from jaxtl.data.steps.transforms import name_of
from jaxtl.data.table import result_of
from jaxtl.files import Damaged, read_json, replacing, write_json
from jaxtl.plan import Experiment, PyTree, Stage
from jaxtl.train.store.interface import describe

logger = logging.getLogger(__name__)

RECORD, FOLDER = "preprocessing.json", "preprocessing"
IMAGE_KINDS = {fn: fn.__name__ for fn in traceable.IMAGES}
SAMPLE = 1000  # streamed images that are read for their range


def write_preprocessing(directory: Path, experiment: Experiment, stages: Sequence[Stage]) -> None:
    """Write down how the evaluations' and the stages' data are prepared, in the first process.

    Stages and evaluations that the directory's record holds already, of other arms, stay.

    Args:
        directory: <workdir>/<experiment>.
        stages: those to be trained.

    Raises:
        NotWritten: a file cannot be.
    """
    if jax.process_index() > 0:
        return

    @functools.cache
    def of_table(table: Dataset) -> dict[str, Any]:
        return preparation(directory / FOLDER, table)

    def of(dataset: Dataset) -> dict[str, Any]:
        steps = tuple(step for step in dataset.steps if not step.selects)
        return of_table(dataclasses.replace(dataset, name="", steps=steps))

    evaluations = {name: of(evaluation.dataset) for name, evaluation in experiment.evals.items()}
    data = {s.name: [of(domain.dataset) for domain in s.domains] for s in stages}
    try:
        before = read_preprocessing(directory)
    except Damaged as error:
        logger.warning("%s for the arms of this launch", error)
        before = None
    before = before or {"evaluations": {}, "stages": {}}
    record = {
        "evaluations": before["evaluations"] | evaluations,
        "stages": before["stages"] | data,
    }
    write_json(directory / RECORD, record)


def read_preprocessing(directory: Path) -> dict[str, Any] | None:
    """What `write_preprocessing` wrote, None if it did not.

    Raises:
        Damaged: the file holds something else.
        NotRead: the system does not hand it out.
    """
    keys = {"evaluations": dict, "stages": dict}
    return read_json(directory / RECORD, keys, "the command of the run writes it anew")


def preparation(folder: Path, dataset: Dataset) -> dict[str, Any]:
    """How raw rows of a dataset become its inputs, as JSON values; labels are left out.

    Args:
        folder: for the files that are named.

    Returns:
        {"raw": pytree of {"shape" of one row, "dtype"}, "ranges": [least, most] of each leaf that
        holds float images and None of others, "columns": names of the inputs of a table, in order,
        "steps": those that change inputs, in order, each
        {"kind", "name", ...} and what it "gives", like "raw"}.
    """
    loaded, steps = result_of(dataset.load), []
    for position, (step, before, after) in enumerate(dataset.history()):
        if step.function is transforms.quarter_turns:
            continue  # a row as it comes is one that was not turned
        leaves = [jax.tree.leaves(table.inputs) for table in (before, after)]
        if len(leaves[0]) != len(leaves[1]) or any(map(operator.is_not, *leaves)):
            record = _step(folder, position, step, before, after)
            steps.append(record | {"gives": describe(after.inputs)})
    ranges = [_range(leaf) for leaf in jax.tree.leaves(loaded.inputs)]
    raw = {"raw": describe(loaded.inputs), "ranges": ranges, "columns": list(loaded.columns)}
    return {**raw, "steps": steps}


def _range(leaf: Any) -> list[float] | None:
    if not is_image(leaf.shape) or not np.issubdtype(leaf.dtype, np.floating) or not len(leaf):
        return None
    sample = leaf if isinstance(leaf, np.ndarray) else leaf[:SAMPLE]
    limits = [float(extreme.reduce(sample, axis=None)) for extreme in (np.fmin, np.fmax)]
    return limits if np.isfinite(limits).all() else None  # what is missing may be filled in later


def _step(folder: Path, position: int, step: Step, before: Table, after: Table) -> dict[str, Any]:
    """JSON values of one step, by which `export.recipe` finds or makes it again."""
    function, arguments = step.function, step.arguments
    if function is transforms.standardize:
        tree = jax.tree.structure(before.inputs)
        statistics = tree.flatten_up_to(transforms.statistics_of(*arguments))
        return {"kind": "standardize", "name": "standardize", "file": _save(folder, statistics)}
    if function is one_hot:
        spaces = [[column, names and list(names)] for column, names in result_of(*arguments)]
        return {"kind": "one_hot", "name": "one_hot", "columns": spaces}
    if function is text.tokenize:
        file, length, lowercase = Path(arguments[0]), *arguments[1:]
        about = {"kind": "tokenize", "name": "tokenize", "length": length, "lowercase": lowercase}
        return {**about, "file": _write(folder, "tokenizer", file.suffix, file.read_bytes())}
    if function is transforms.map_images:
        function, arguments = arguments
        if function in IMAGE_KINDS:
            name = IMAGE_KINDS[function]
            values = [np.asarray(argument).tolist() for argument in arguments]
            return {"kind": name, "name": name, "arguments": values}
    problem = None if getattr(function, "by_row", False) else row_problem(step, before, after)
    name = name_of_step(step)
    return {"kind": "function", "name": name, "position": position, "problem": problem}


def name_of_step(step: Step) -> str:
    """`map_images(rotated)`, say, of a function of one's own."""
    if step.function is transforms.map_images:
        return f"map_images({name_of(step.arguments[0])})"
    return f"map({name_of(step.function)})"


def row_problem(step: Step, before: Table, after: Table) -> str | None:
    """Why a function of one's own cannot prepare rows alone, if it cannot.

    It is tried on the first row and the last, without labels, and on a row that it has not seen,
    alone and beside another one: a function that reads labels or the other rows says so, raises or
    gives another result.
    """

    def prepared(rows: PyTree) -> PyTree:
        return step.function(Table(rows, {}), *step.arguments).inputs

    def row_of(inputs: PyTree, row: int) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[np.array([row])], inputs)

    first, last = (row_of(before.inputs, row) for row in (0, len(before) - 1))
    new = jax.tree.map(_halved, first)
    both = jax.tree.map(lambda *leaves: np.concatenate(leaves), new, last)
    try:
        if len(before) != len(after):
            return f"it makes {len(after)} rows of {len(before)}"
        for row, alone in ((0, first), (len(before) - 1, last)):
            if not _same(prepared(alone), row_of(after.inputs, row)):
                return "it gives another result for a row alone than among all rows"
        if not _same(prepared(new), row_of(prepared(both), 0)):
            return "what it gives for a row depends on the other rows"
    except Exception as error:  # whatever a function of one's own raises
        reason = str(error).strip().partition("\n")[0]
        return f"on rows without labels it raises {type(error).__name__}: {reason}"
    return None


def _halved(leaf: np.ndarray) -> np.ndarray:
    if leaf.dtype.kind in "OUSb":
        return leaf
    return leaf / 2 if np.issubdtype(leaf.dtype, np.floating) else leaf // 2


def _same(a: PyTree, b: PyTree) -> bool:
    """Whether two pytrees hold the same rows, floats as far as the order of sums allows."""

    def same(x: Any, y: Any) -> bool:
        x, y = np.asarray(x), np.asarray(y)
        if x.shape != y.shape or not np.issubdtype(y.dtype, np.floating):
            return np.array_equal(x, y)
        size = np.abs(y[np.isfinite(y)]).max(initial=0)
        return np.allclose(x, y, rtol=1e-3, atol=1e-4 * size, equal_nan=True)

    alike = jax.tree.structure(a) == jax.tree.structure(b)
    return alike and all(map(same, jax.tree.leaves(a), jax.tree.leaves(b)))


def _save(folder: Path, statistics: list[transforms.Moments | None]) -> str:
    """Statistics as `<leaf>/<statistic>` in a file that `read_statistics` reads."""
    arrays = {
        f"{leaf}/{name}": values
        for leaf, moments in enumerate(statistics)
        if moments is not None
        for name, values in moments._asdict().items()
    }
    content = io.BytesIO()
    np.savez(content, **arrays)
    return _write(folder, "statistics", ".npz", content.getvalue())


def read_statistics(path: Path) -> dict[int, transforms.Moments]:
    """{number of a leaf: its moments}, as `standardize` left them.

    Raises:
        ValueError: the file is damaged or not there.
    """
    moments: dict[int, dict[str, np.ndarray]] = {}
    try:
        with np.load(path) as arrays:
            for key in arrays:
                leaf, name = key.split("/")
                moments.setdefault(int(leaf), {})[name] = arrays[key]
        return {leaf: transforms.Moments(**values) for leaf, values in moments.items()}
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"cannot read the statistics {path}: {error}") from error


def _write(folder: Path, name: str, suffix: str, content: bytes) -> str:
    """Write a file that is called after its content; returns its name."""
    path = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    with replacing(path) as partial:
        partial.write_bytes(content)
    return path.name
