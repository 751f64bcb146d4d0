"""Datasets prepared by TensorFlow Datasets, read from their folder without TensorFlow."""

import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtl.data.dataset import Dataset, Part
from jaxtl.data.prepared.tfds_features import (
    column_of,
    dtype_of,
    is_class,
    kind_of,
    leaf_features,
    shape_of,
)
from jaxtl.data.prepared.tfds_folders import (
    NotPrepared,
    damage,
    data_root,
    find_folder,
    not_prepared,
    open_builder,
    prepared_folder,
    split_names,
)
from jaxtl.data.sources.roles import label_columns
from jaxtl.data.splits import Splits
from jaxtl.data.steps import images
from jaxtl.data.streamed import Streamed, stream
from jaxtl.data.table import Call, Table, read_from
from jaxtl.form import checked
from jaxtl.paths import unknown

CHUNK = 1024  # records parsed at a time


class Request(NamedTuple):
    """What is read of which dataset; see `tfds`.

    Attributes:
        root: the folder of all datasets.
    """

    name: str
    split: str
    inputs: str | tuple[str, ...] | None
    labels: tuple[tuple[str, str], ...] | None
    size: tuple[int, int] | None
    root: str
    streamed: bool | None
    holdout: float | None


@checked
def tfds(
    name: str,
    split: str | None = None,
    *,
    inputs: str | Sequence[str] | None = None,
    label: str | Sequence[str] | Mapping[str, str] | None = None,
    size: images.ImageSize | None = None,
    data_dir: str | os.PathLike | None = None,
    streamed: bool | None = None,
    holdout: Part | None = None,
) -> Dataset | Splits:
    """A prepared dataset, decoded when it is used; nothing is ever downloaded.

        tfds("mnist").train    tfds("mnist", "train[:5000]")    tfds("usps", data_dir="~/data")
        tfds("office31", size=(96, 96)).webcam    tfds("tf_flowers", holdout=0.2).test

    Images become uint8, text str, ClassLabel and whole numbers int32, other numbers (and uint8
    vectors) float32.

    Args:
        name: as TFDS has it, with `/config` and `:version` where wanted.
        split: a split or a slice of one; None for all splits by name.
        inputs: feature, or features for a dict of inputs; by default the supervised one, else all
            images, else all arrays, else all texts.
        label: feature for the label column "label", features that keep their names, or {label
            column: feature}; by default all class labels and numbers, with the supervised one (or
            the only class label) as "label" too.
        size: (height, width) that every image is resized to, for images of many sizes.
        data_dir: where TFDS keeps its data; `TFDS_DATA_DIR` or TFDS's default if None.
        streamed: decode the inputs of a batch when it is needed, not all beforehand (labels and
            texts always are); None: if they would take more than half of the machine's memory.
        holdout: share of a dataset that comes as one split which is called `test`, its last
            examples, the others `train`. One that has several splits is left as it is.

    Returns:
        `Splits`, or a `Dataset` if `split` is given.

    Raises:
        ValueError: on use, for a dataset that is unknown or not prepared (with the command that
            prepares it) or damaged, an unknown split or feature, images of many sizes without
            `size`, or whole numbers of more than 32 bits; at once, for `holdout` with `split`.
    """
    if split is not None and holdout is not None:
        raise ValueError(f"holdout makes the splits train and test; leave out split={split!r}")
    root, size = data_root(data_dir), size and tuple(size)
    inputs = tuple(inputs) if inputs is not None and not isinstance(inputs, str) else inputs
    labels = None if label is None else label_columns(label)

    def handle(split: str) -> Dataset:
        request = Request(name, split, inputs, labels, size, root, streamed, holdout)
        return Dataset(f"{name}.{split}", Call(_load, request))

    def names(folder: Path) -> tuple[str, ...]:
        splits = split_names(folder)
        return ("train", "test") if holdout and len(splits) == 1 else splits

    def find(split: str) -> Dataset:
        """A handle needs no data, but where there are data a wrong name is told at once."""
        folder = find_folder(name, root)
        if folder is not None and _base_splits(split) - {*names(folder), "all"}:
            raise KeyError(split)
        return handle(split)

    if split is not None:
        return handle(split)
    return Splits.lazy(find, lambda: names(prepared_folder(name, root)))


def requests(datasets: Iterable[Dataset]) -> list[Request]:
    """What datasets read of prepared ones, for their statistics too; nothing is read here."""
    calls = [call for each in datasets for call in _calls((each.load, *each.steps))]
    return [call.arguments for call in calls if call.function is _load]


def missing(datasets: Iterable[Dataset]) -> list[str]:
    """Why prepared datasets cannot be read, in lines; one for all that a command prepares.

    Their examples are not looked at.
    """
    lines, by_root = [], {}
    for name, root in dict.fromkeys((each.name, each.root) for each in requests(datasets)):
        try:
            prepared_folder(name, root)
        except NotPrepared as error:
            by_root.setdefault(root, []).append(error)
        except ValueError as error:
            lines.append(str(error))
    return [*map(not_prepared, by_root.values()), *lines]


def _calls(value: Any) -> Iterator[Call]:
    """A call and those among its arguments, such as the data whose statistics are used."""
    if isinstance(value, Call):
        yield value
    if isinstance(value, tuple):
        for part in value:
            yield from _calls(part)


def _base_splits(split: str) -> set[str]:
    """Names in a split expression: `train[:50%]+test` -> {train, test}."""
    return {part.split("[")[0].strip() for part in split.split("+")}


def _load(*request: Any) -> Table:
    name, split, inputs, labels, size, root, streamed, holdout = Request(*request)
    folder = prepared_folder(name, root)
    read_from([folder.parent, *sorted(folder.iterdir())])  # a newer version would stand beside it
    import tensorflow_datasets as tfds

    splits = split_names(folder)
    if holdout and len(splits) == 1:
        split = _part_of(folder, splits[0], split, holdout)
    bases = _base_splits(split)
    if wrong := sorted(bases - {*splits, "all"}):
        raise ValueError(unknown("split", wrong[0], splits))
    builder = open_builder(folder, splits if "all" in bases else sorted(bases))
    try:
        count = builder.info.splits[split].num_examples
    except Exception as error:  # TFDS raises nothing narrower for what is no slice
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot read the split {split!r}: {reason}") from error
    if count < 1:
        raise ValueError(f"the split {split!r} of {name!r} has no examples")
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    source = builder.as_data_source(split, deserialize_method=raw)
    features = leaf_features(builder.info.features)
    input_paths, label_paths = _choose(features, builder.info.supervised_keys, inputs, labels)

    arrays = {path: features[path] for path in input_paths if kind_of(features[path]) != "text"}
    on_disk = {}
    if stream(streamed, _nbytes(builder.info, arrays.values(), count, size), f"{name}.{split}"):
        version = _version(builder.info, split)
        on_disk = {
            path: _streamed(source, folder, path, arrays[path], size, version) for path in arrays
        }
    held = {*label_paths.values(), *input_paths} - (on_disk.keys() - label_paths.values())
    read = _reader(source, folder, {path: features[path] for path in held}, size)
    in_memory = read(range(count)) if held else {}
    columns = in_memory | on_disk
    single = len(input_paths) == 1 and not isinstance(inputs, tuple)
    return Table(
        columns[input_paths[0]] if single else {path: columns[path] for path in input_paths},
        {column: in_memory[path] for column, path in label_paths.items()},
        {
            column: tuple(features[path].names)
            for column, path in label_paths.items()
            if is_class(features[path])
        },
    )


def _part_of(folder: Path, whole: str, split: str, holdout: float) -> str:
    """The slice of an only split that `train` or `test` stands for."""
    count = open_builder(folder, [whole]).info.splits[whole].num_examples
    first = count - round(count * holdout)
    parts = {"train": f"{whole}[:{first}]", "test": f"{whole}[{first}:]"}
    if split not in parts:
        raise ValueError(unknown("split", split, parts))
    return parts[split]


def _version(info: Any, split: str) -> bytes:
    """Name and version of a dataset, and the parts of its files, by name and size, of a split.

    Its folder may be copied elsewhere, so that neither the path nor the time counts.
    """
    parts = [
        (Path(part.filename).name, part.skip, part.take, Path(part.filename).stat().st_size)
        for part in info.splits[split].file_instructions
    ]
    return repr((info.full_name, parts)).encode()


def _streamed(
    source: Any, folder: Path, path: str, feature: Any, size: Any, version: bytes
) -> Streamed:
    shape = shape_of(feature, size)
    if None in shape:
        raise ValueError(
            f"feature {path!r} has examples of shape {list(shape)} (None: any), which cannot be "
            "streamed; images can, with size=(height, width)"
        )
    read = _reader(source, folder, {path: feature}, size)
    shape = (len(source), *shape)
    return Streamed(
        shape,
        dtype_of(feature),
        lambda rows: read(rows)[path],
        lambda _: version,
        source=(_reader, path, repr(feature), size),
    )


def _nbytes(info: Any, features: Collection[Any], count: int, size: Any) -> float:
    """Bytes of so many decoded examples, or at least what they take on disk."""
    shapes = [shape_of(feature, size) for feature in features]
    if any(None in shape for shape in shapes):
        return info.dataset_size / max(info.splits.total_num_examples, 1) * count
    each = zip(shapes, map(dtype_of, features), strict=True)
    return count * sum(math.prod(shape) * dtype.itemsize for shape, dtype in each)


def _reader(
    source: Any, folder: Path, features: Mapping[str, Any], size: Any
) -> Callable[[Sequence[int]], dict[str, np.ndarray]]:
    """rows -> {path: [rows, ...]}, of raw records; decodes these features and no others.

    The readers of array_record, which `source` opens when they are needed, are made for threads.
    """
    import tensorflow_datasets as tfds

    # A record names nested features by their paths, so that they can be read as flat ones.
    decoder = tfds.features.FeaturesDict(dict(features))
    encoded = {
        path: tfds.decode.SkipDecoding()
        for path, feature in features.items()
        if kind_of(feature) == "image"
    }

    def read(rows: Sequence[int]) -> dict[str, np.ndarray]:
        values: dict[str, list] = {path: [] for path in features}
        try:
            for start in range(0, len(rows), CHUNK):
                records = source.__getitems__([int(row) for row in rows[start : start + CHUNK]])
                for record in records:
                    example = decoder.deserialize_example_np(record, decoders=encoded)
                    for path in features:
                        values[path].append(example[path])
        except Exception as error:  # whatever damaged records make of the parsers
            reason = f"a record cannot be read ({type(error).__name__}: {error})"
            raise ValueError(damage(folder, reason)) from error
        return {path: column_of(path, features[path], values[path], size) for path in features}

    return read


def _choose(
    features: Mapping[str, Any],
    supervised: Any,
    inputs: str | tuple[str, ...] | None,
    labels: tuple[tuple[str, str], ...] | None,
) -> tuple[list[str], dict[str, str]]:
    """Paths of the inputs and {column: path} of the labels, see `tfds`."""
    kinds = {path: kind_of(feature) for path, feature in features.items()}
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
        columns = dict(labels)
    for path in (*chosen, *columns.values()):
        if path not in features:
            raise ValueError(unknown("feature", path, features))
        if kinds[path] == "other":
            raise ValueError(f"feature {path!r} ({features[path]}) cannot be read as an array")
    if not chosen:
        raise ValueError(f"no feature can serve as inputs; there are: {', '.join(features)}")
    return chosen, columns
