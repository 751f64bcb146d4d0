"""Datasets prepared by TensorFlow Datasets, read from their folder without TensorFlow."""

import functools
import io
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxtl.data import images
from jaxtl.data.dataset import Dataset
from jaxtl.data.splits import Splits
from jaxtl.data.table import Call, Table
from jaxtl.data.tfds_folders import data_root, find_folder, prepared, split_names
from jaxtl.paths import unknown

CHUNK = 2048  # records decoded at a time


def tfds(
    name: str,
    split: str | None = None,
    *,
    inputs: str | Sequence[str] | None = None,
    labels: str | Mapping[str, str] | None = None,
    size: tuple[int, int] | None = None,
    data_dir: str | os.PathLike | None = None,
) -> Any:
    """A prepared dataset, decoded into memory when it is used; nothing is ever downloaded.

        tfds("mnist").train    tfds("office31_128").webcam    tfds("mnist", "train[:5000]")

    Images become uint8, text str, ClassLabel and whole numbers int32, other numbers (and uint8
    vectors) float32.

    Args:
        name: as TFDS has it, with `/config` and `:version` where wanted.
        split: a split or a slice of one; None for all splits by name.
        inputs: feature, or features for a dict of inputs; by default the supervised one, else all
            images, else all arrays, else all texts.
        labels: feature for the column "label", or {column: feature}; by default all class labels
            and numbers, with the supervised one (or the only class label) as "label" too.
        size: (height, width) that every image is resized to, for images of many sizes.
        data_dir: where TFDS keeps its data; `TFDS_DATA_DIR` or TFDS's default if None.

    Returns:
        `Splits`, or a `Dataset` if `split` is given.

    Raises:
        ValueError: on use, for a dataset that is unknown or not prepared (with the command that
            prepares it), an unknown split or feature, or images of many sizes.
    """
    root = data_root(data_dir)
    inputs = tuple(inputs) if inputs is not None and not isinstance(inputs, str) else inputs
    labels = tuple(labels.items()) if isinstance(labels, Mapping) else labels

    def handle(split: str) -> Dataset:
        return Dataset(f"{name}.{split}", Call(_load, (name, split, inputs, labels, size, root)))

    def find(split: str) -> Dataset:
        """A handle needs no data, but where there are data a wrong name is told at once."""
        folder = find_folder(name, root)
        if folder is not None and _base_splits(split) - {*split_names(folder), "all"}:
            raise KeyError(split)
        return handle(split)

    if split is not None:
        return handle(split)
    return Splits.lazy(find, lambda: split_names(prepared(name, root)))


def _base_splits(split: str) -> set[str]:
    """Names in a split expression: `train[:50%]+test` -> {train, test}."""
    return {part.split("[")[0].strip() for part in split.split("+")}


def _load(
    name: str,
    split: str,
    inputs: str | tuple[str, ...] | None,
    labels: str | tuple[tuple[str, str], ...] | None,
    size: tuple[int, int] | None,
    root: str,
) -> Table:
    folder = prepared(name, root)
    import tensorflow_datasets as tfds

    for base in _base_splits(split) - {"all"}:
        if base not in split_names(folder):
            raise ValueError(unknown("split", base, split_names(folder)))
    builder = tfds.builder_from_directory(folder)
    features = dict(_flat(builder.info.features))
    chosen_inputs, chosen_labels = _choose(features, builder.info.supervised_keys, inputs, labels)
    wanted = {*chosen_inputs, *chosen_labels.values()}
    decoders: dict[str, Any] = {}
    for path in wanted:
        if isinstance(features[path][1], tfds.features.Image):
            keys = features[path][0]
            place = functools.reduce(lambda d, key: d.setdefault(key, {}), keys[:-1], decoders)
            place[keys[-1]] = tfds.decode.SkipDecoding()
    source = builder.as_data_source(split, decoders=decoders)
    parts: dict[str, list[np.ndarray]] = {path: [] for path in wanted}
    for start in range(0, len(source), CHUNK):
        records = source.__getitems__(range(start, min(start + CHUNK, len(source))))
        for path, chunks in parts.items():
            keys, feature = features[path]
            values = [functools.reduce(operator.getitem, keys, record) for record in records]
            chunks.append(_column(path, feature, values, size))
    columns = {path: images.concatenate(chunks, path) for path, chunks in parts.items()}
    names = {
        path: tuple(features[path][1].names) for path in wanted if _is_class(features[path][1])
    }
    single = len(chosen_inputs) == 1 and not isinstance(inputs, tuple)
    return Table(
        columns[chosen_inputs[0]] if single else {path: columns[path] for path in chosen_inputs},
        {column: columns[path] for column, path in chosen_labels.items()},
        {column: names[path] for column, path in chosen_labels.items() if path in names},
    )


def _flat(features: Any, keys: tuple[str, ...] = ()) -> Iterable[tuple[str, tuple[tuple, Any]]]:
    """(path, (keys, feature)) of all leaves of a FeaturesDict."""
    import tensorflow_datasets as tfds

    for key, feature in features.items():
        if isinstance(feature, tfds.features.FeaturesDict):
            yield from _flat(feature, (*keys, key))
        else:
            yield "/".join((*keys, key)), ((*keys, key), feature)


def _choose(
    features: Mapping[str, tuple[tuple, Any]],
    supervised: Any,
    inputs: str | tuple[str, ...] | None,
    labels: str | tuple[tuple[str, str], ...] | None,
) -> tuple[list[str], dict[str, str]]:
    """Paths of the inputs and {column: path} of the labels, see `tfds`."""
    kinds = {path: _kind(feature) for path, (_, feature) in features.items()}
    pair = supervised if isinstance(supervised, tuple) and len(supervised) == 2 else (None, None)
    if inputs is None and pair[0] in features:
        chosen = [pair[0]]
    elif inputs is None:
        by_kind = [[p for p in kinds if kinds[p] == kind] for kind in ("image", "array", "text")]
        chosen = next(filter(None, by_kind), [])
    else:
        chosen = [inputs] if isinstance(inputs, str) else list(inputs)
    if labels is None:
        columns = {p: p for p in kinds if kinds[p] in ("class", "number") and p not in chosen}
        only = [p for p in columns if kinds[p] == "class"]
        target = pair[1] if pair[1] in features else only[0] if len(only) == 1 else None
        columns |= {"label": target} if target else {}
    else:
        columns = {"label": labels} if isinstance(labels, str) else dict(labels)
    for path in (*chosen, *columns.values()):
        if path not in features:
            raise ValueError(unknown("feature", path, features))
        if kinds[path] == "other":
            raise ValueError(f"feature {path!r} ({features[path][1]}) cannot be read as an array")
    if not chosen:
        raise ValueError(f"no feature can serve as inputs; there are: {', '.join(features)}")
    return chosen, columns


def _kind(feature: Any) -> str:
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.Image):
        return "image"
    if isinstance(feature, tfds.features.Text):
        return "text"
    if _is_class(feature):
        return "class"
    if type(feature) in (tfds.features.Tensor, tfds.features.Scalar) and (
        np.issubdtype(feature.np_dtype, np.number) or feature.np_dtype == np.bool_
    ):
        return "array" if feature.shape else "number"
    return "other"


def _is_class(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.ClassLabel)


def _column(path: str, feature: Any, values: list, size: tuple[int, int] | None) -> np.ndarray:
    """One feature of some records as an array [n, ...]."""
    kind = _kind(feature)
    if kind == "image":
        return images.stack(
            [images.decode(io.BytesIO(value), feature.shape[-1], size) for value in values], path
        )
    if kind == "text":
        return np.array([bytes(value).decode() for value in values] + [None], object)[:-1]
    stacked = images.stack([np.asarray(value) for value in values], path)
    whole = np.issubdtype(stacked.dtype, np.integer) and stacked.dtype != np.uint8
    return stacked.astype(np.int32 if whole or kind == "class" else np.float32)
