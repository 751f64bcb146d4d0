"""Datasets prepared by TensorFlow Datasets, read from their folder without TensorFlow."""

import functools
import io
import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxtl.data import images
from jaxtl.data.dataset import Dataset
from jaxtl.data.splits import Splits
from jaxtl.data.streamed import Streamed, stream
from jaxtl.data.table import Call, Table
from jaxtl.data.tfds_folders import data_root, find_folder, prepared, split_names
from jaxtl.paths import unknown

CHUNK = 1024  # records decoded at a time


def tfds(
    name: str,
    split: str | None = None,
    *,
    inputs: str | Sequence[str] | None = None,
    labels: str | Mapping[str, str] | None = None,
    size: tuple[int, int] | None = None,
    data_dir: str | os.PathLike | None = None,
    streamed: bool | None = None,
) -> Any:
    """A prepared dataset, decoded when it is used; nothing is ever downloaded.

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
        streamed: decode the inputs of a batch when it is needed, not all beforehand (labels and
            texts always are); None: if they would take more than half of the machine's memory.

    Returns:
        `Splits`, or a `Dataset` if `split` is given.

    Raises:
        ValueError: on use, for a dataset that is unknown or not prepared (with the command that
            prepares it), an unknown split or feature, or images of many sizes without `size`.
    """
    root = data_root(data_dir)
    inputs = tuple(inputs) if inputs is not None and not isinstance(inputs, str) else inputs
    labels = tuple(labels.items()) if isinstance(labels, Mapping) else labels

    def handle(split: str) -> Dataset:
        arguments = (name, split, inputs, labels, size, root, streamed)
        return Dataset(f"{name}.{split}", Call(_load, arguments))

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
    streamed: bool | None,
) -> Table:
    folder = prepared(name, root)
    import tensorflow_datasets as tfds

    for base in _base_splits(split) - {"all"}:
        if base not in split_names(folder):
            raise ValueError(unknown("split", base, split_names(folder)))
    builder = tfds.builder_from_directory(folder)
    features = dict(_flat(builder.info.features))
    chosen_inputs, chosen_labels = _choose(features, builder.info.supervised_keys, inputs, labels)
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    source = builder.as_data_source(split, deserialize_method=raw)
    arrays = [path for path in chosen_inputs if _kind(features[path][1]) != "text"]
    nbytes = _nbytes(builder.info, [features[path][1] for path in arrays], len(source), size)
    lazy = {}
    if stream(streamed, nbytes, f"{name}.{split}"):
        lazy = {path: _streamed(source, features, path, size) for path in arrays}
    held = list({*chosen_inputs, *chosen_labels.values()} - (lazy.keys() - chosen_labels.values()))
    read = _reader(source, features, held, size)
    starts = range(0, len(source), CHUNK) if held else ()
    parts = [read(range(start, min(start + CHUNK, len(source)))) for start in starts]
    columns = {path: images.concatenate([part[path] for part in parts], path) for path in held}
    found = columns | lazy
    single = len(chosen_inputs) == 1 and not isinstance(inputs, tuple)
    return Table(
        found[chosen_inputs[0]] if single else {path: found[path] for path in chosen_inputs},
        {column: columns[path] for column, path in chosen_labels.items()},
        {
            column: tuple(features[path][1].names)
            for column, path in chosen_labels.items()
            if _is_class(features[path][1])
        },
    )


def _streamed(
    source: Any, features: Mapping[str, tuple[tuple, Any]], path: str, size: Any
) -> Streamed:
    feature = features[path][1]
    shape = _shape(feature, size)
    if None in shape:
        raise ValueError(
            f"feature {path!r} has examples of shape {list(shape)} (None: any), which cannot be "
            "streamed; images can, with size=(height, width)"
        )
    read = _reader(source, features, [path], size)
    return Streamed((len(source), *shape), _dtype(feature), lambda rows: read(rows)[path])


def _nbytes(info: Any, features: Sequence[Any], count: int, size: Any) -> float:
    """Bytes of so many decoded examples, or at least what they take on disk."""
    shapes = [_shape(feature, size) for feature in features]
    if any(None in shape for shape in shapes):
        return info.dataset_size / max(info.splits.total_num_examples, 1) * count
    each = zip(shapes, map(_dtype, features), strict=True)
    return count * sum(math.prod(shape) * dtype.itemsize for shape, dtype in each)


def _reader(
    source: Any, features: Mapping[str, tuple[tuple, Any]], paths: Sequence[str], size: Any
) -> Callable[[Iterable[int]], dict[str, np.ndarray]]:
    """rows -> {path: [rows, ...]}, of raw records; decodes these features and no others.

    The readers of array_record, which `source` opens when they are needed, are made for threads.
    """
    import tensorflow_datasets as tfds

    wanted: dict[str, Any] = {}
    encoded: dict[str, Any] = {}
    for path in paths:
        keys, feature = features[path]
        _put(wanted, keys, feature)
        if _kind(feature) == "image":
            _put(encoded, keys, tfds.decode.SkipDecoding())
    decoder = tfds.features.FeaturesDict(wanted)

    def read(rows: Iterable[int]) -> dict[str, np.ndarray]:
        records = source.__getitems__([int(row) for row in rows])
        examples = [decoder.deserialize_example_np(r, decoders=encoded) for r in records]
        columns = {}
        for path in paths:
            keys, feature = features[path]
            values = [functools.reduce(operator.getitem, keys, example) for example in examples]
            columns[path] = _column(path, feature, values, size)
        return columns

    return read


def _put(tree: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    functools.reduce(lambda d, key: d.setdefault(key, {}), keys[:-1], tree)[keys[-1]] = value


def _shape(feature: Any, size: tuple[int, int] | None) -> tuple[int | None, ...]:
    """Shape of one example, None where it is not known."""
    if _kind(feature) == "image" and size is not None:
        return (*size, feature.shape[-1])
    return tuple(feature.shape)


def _dtype(feature: Any) -> np.dtype:
    """What `_column` makes of numbers and images."""
    if _kind(feature) == "image":
        return np.dtype(np.uint8)
    whole = np.issubdtype(feature.np_dtype, np.integer) and feature.np_dtype != np.uint8
    return np.dtype(np.int32 if whole or _is_class(feature) else np.float32)


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
    return stacked.astype(_dtype(feature))
