"""Datasets of the Hugging Face hub, and those of its form in folders and files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtl.data.arrays import as_inputs
from jaxtl.data.columns import as_column
from jaxtl.data.dataset import Dataset
from jaxtl.data.sources.hugging_face.features import (
    INPUTS,
    array_of,
    column_of,
    inner_names,
    kind_of,
    numbers_of,
    texts_of,
)
from jaxtl.data.sources.hugging_face.opening import Source, open_splits, source_of, split_of
from jaxtl.data.sources.roles import Roles, roles_of
from jaxtl.data.sources.tables import Cells, labels_of
from jaxtl.data.splits import Splits
from jaxtl.data.steps.images import ImageSize
from jaxtl.data.table import Call, Table, result_of
from jaxtl.form import checked
from jaxtl.paths import unknown

TARGETS = ("label", "labels")  # names of the labels where no feature is a ClassLabel


@checked
def hub(
    path: str | os.PathLike,
    split: str | None = None,
    *,
    config: str | None = None,
    inputs: str | Sequence[str] | None = None,
    label: str | Sequence[str] | Mapping[str, str] | None = None,
    classes: Any = None,
    regression: bool | Sequence[str] = False,
    size: ImageSize | None = None,
    data_files: Any = None,
    revision: str | None = None,
) -> Dataset | Splits:
    """A dataset of the Hugging Face hub, or one of that form on disk; needs `datasets`.

        data.hub("ylecun/mnist").train    data.hub("nyu-mll/glue", "train", config="sst2")
        data.hub("folder/of/save_to_disk")    data.hub("parquet", data_files={"train": "a.parquet"})

    What is on the hub is downloaded when it is used first, into the cache of `datasets`. All is
    held in memory. Images become uint8, text str, whole numbers int32, other numbers float32.
    Numbers alone are the inputs of a table [n, features], which `predict` finds by name too.

    A `ClassLabel` has its names; -1 or nothing is a missing label, as in test splits that hide
    theirs. Texts and whole numbers are classes, those of all splits in order, and floats values.

    Args:
        path: a name on the hub; a folder that `save_to_disk` wrote, or of Parquet, Arrow or other
            files; a Parquet, Arrow or JSON file; or a builder's name, with `data_files`.
        split: a split or, not of `save_to_disk`, a slice of one; None for all splits by name.
        config: of the hub's dataset, where it has several.
        inputs: column, or columns for a dict of inputs; by default all images, else all arrays,
            else all texts, else all numbers.
        label: column for the label column "label", columns that keep their names, or {label
            column: column}, {} for none; by default all class labels. The only one, or else a
            column that is called "label" or "labels", is "label" then.
        classes, regression: of the columns in `label`, see `data.csv`.
        size: (height, width) that every image is resized to, for images of many sizes.
        data_files: a file or files, or {split: them}; `*` stands for any part of a name.
        revision: branch, tag or commit on the hub; what a commit holds stays the same.

    Returns:
        `Splits`, or a `Dataset` if `split` is given.

    Raises:
        ValueError: arguments of another kind; on use, `datasets` is not installed, the network or
            the dataset is missing, an unknown config, split or column; columns that are nested,
            of different lengths or without a value; images of many sizes without `size`.
    """
    source = source_of(path, config, revision, data_files)
    inputs = tuple(inputs) if inputs is not None and not isinstance(inputs, str) else inputs
    if label is None and (classes is not None or regression):
        raise ValueError(f"hub {source.path!r}: classes= and regression= need label=")
    labels = None
    if label is not None:
        labels = _roles(source.path, label, classes, regression)
    name = Path(path).stem if Path(path).is_file() else Path(source.path).name

    def handle(split: str) -> Dataset:
        arguments = (source, split, inputs, labels, size and tuple(size))
        return Dataset(f"{name}.{split}", Call(_load, arguments))

    if split is not None:
        return handle(split)
    return Splits.lazy(handle, lambda: tuple(result_of(Call(open_splits, (source,)))))


def _roles(path: str, label: Any, classes: Any, regression: Any) -> Roles:
    try:
        return roles_of(
            label, classes=classes, regression=regression, columns=None, drop=(), categorical=()
        )
    except ValueError as error:
        raise ValueError(f"hub {path!r}: {error}") from error


def _load(
    source: Source,
    split: str,
    inputs: str | tuple[str, ...] | None,
    roles: Roles | None,
    size: tuple[int, int] | None,
) -> Table:
    dataset = split_of(source, split)
    if not len(dataset):
        raise ValueError(f"the split {split!r} has no examples")
    features = dataset.features
    chosen, roles = _choose(features, inputs, roles)
    values = _read(dataset, chosen)
    labels, classes = _labels(source, split, dataset, roles)
    if all(kind_of(features[name]) == "number" for name in chosen):
        columns = [numbers_of(name, values[name]) for name in chosen]
        return Table(as_inputs(np.stack(columns, 1)), labels, classes, chosen)
    leaves = {name: column_of(name, features[name], values[name], size) for name in chosen}
    is_single = len(chosen) == 1 and not isinstance(inputs, tuple)
    return Table(leaves[chosen[0]] if is_single else leaves, labels, classes)


def _read(dataset: Any, names: Sequence[str]) -> Any:
    """Columns in Arrow's form, by name, in the order of the dataset, images as they are stored."""
    if not names:
        return {}
    import datasets

    part = dataset.select_columns([*names])
    for name in names:
        if type(part.features[name]).__name__ == "Image":
            part = part.cast_column(name, datasets.Image(decode=False))
    return part.with_format("arrow")[:]


def _labels(
    source: Source, split: str, dataset: Any, roles: Roles
) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
    """Labels, and the classes of all splits; arrays of labels are taken as they are."""
    features = dataset.features
    arrays = {h: c for h, c in roles.labels if kind_of(features[c]) == "array"}
    plain = tuple((head, column) for head, column in roles.labels if head not in arrays)
    floats = [h for h, c in plain if str(getattr(features[c], "dtype", "")).startswith("float")]
    given = dict(roles.classes)
    values = tuple({*roles.values, *(head for head in floats if head not in given)} - {*arrays})
    roles, others = roles._replace(labels=plain, values=values), []
    shared = [c for h, c in plain if h not in (*values, *given) and kind_of(features[c]) != "class"]
    if shared:  # their classes are those of all splits
        splits = result_of(Call(open_splits, (source,)))
        others = [splits[name] for name in splits if name != split]
    parts = [_cells(source.path, part, roles) for part in (dataset, *others)]
    labels, classes = labels_of(parts, 0, roles)
    read = _read(dataset, [*dict.fromkeys(arrays.values())])
    for head, column in arrays.items():
        names = given.get(head) or inner_names(features[column])
        labels[head], names = as_column(array_of(column, read[column]), names, column)
        if names is not None:
            classes[head] = tuple(names)
    return labels, classes


def _cells(place: str, dataset: Any, roles: Roles) -> Cells:
    features, read = dataset.features, _read(dataset, [column for _, column in roles.labels])
    labels, declared = {}, {}
    for head, column in roles.labels:
        feature = features[column]
        if head in roles.values:
            numbers = array_of(column, read[column]).astype(np.float64)
            labels[head] = [None if np.isnan(value) else value for value in numbers]
        else:
            labels[head] = texts_of(column, feature, read[column])
        if kind_of(feature) == "class":
            declared[column] = tuple(feature.names)
    return Cells(place, {}, labels, declared)


def _choose(
    features: Mapping[str, Any], inputs: str | tuple[str, ...] | None, roles: Roles | None
) -> tuple[tuple[str, ...], Roles]:
    """Columns of the inputs, and the roles of the labels; see `hub`."""
    kinds = {name: kind_of(feature) for name, feature in features.items()}
    if roles is None:
        chosen = (inputs,) if isinstance(inputs, str) else inputs or ()
        named = [n for n in kinds if kinds[n] == "class" and n not in chosen]
        targets = named if len(named) == 1 else [] if named else [*TARGETS]
        target = next((n for n in targets if n in kinds and n not in chosen), None)
        pairs = (("label", target),) if target else ()
        roles = Roles(pairs or tuple((name, name) for name in named))
    columns = [column for _, column in roles.labels]
    if inputs is None:
        by_kind = [[n for n in kinds if kinds[n] == k and n not in columns] for k in INPUTS]
        chosen = tuple(next(filter(None, by_kind), ()))
    else:
        chosen = (inputs,) if isinstance(inputs, str) else inputs
    for name in (*chosen, *columns):
        if name not in features:
            raise ValueError(unknown("column", name, features))
    if both := [name for name in chosen if name in columns]:
        raise ValueError(f"column {both[0]!r} is a label, so it is no input")
    if odd := [name for name in chosen if kinds[name] not in (*INPUTS, "bytes")]:
        hint = "; data.frame(dataset.to_pandas(), ...) takes it as a category"
        hint = hint if kinds[odd[0]] == "class" else ""
        raise ValueError(f"column {odd[0]!r} ({kinds[odd[0]]}) can be no input{hint}")
    if odd := [name for name in columns if kinds[name] not in ("class", "number", "text", "array")]:
        raise ValueError(f"column {odd[0]!r} ({kinds[odd[0]]}) can be no label")
    if not chosen:
        held = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise ValueError(f"no column can serve as inputs; there are: {held}")
    return chosen, roles
