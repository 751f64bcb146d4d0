"""The files of a prepared TFDS dataset, looked at before they are read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtl.data.prepared.tfds_features import flat, is_class
from jaxtl.data.prepared.tfds_folders import damage

MAX_CLASSES = 2**20


def open_builder(folder: Path, splits: Sequence[str]) -> Any:
    """The builder of a prepared dataset, after a look at the files of some splits.

    Raises:
        ValueError: what describes the dataset cannot be parsed, a file is missing or cut off, or
            holds another number of examples than is written down.
    """
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        builder = tfds.builder_from_directory(folder)
        parts = [builder.info.splits[name] for name in splits]
        shards = [
            (Path(file), length)
            for part in parts
            for file, length in zip(part.filepaths, part.shard_lengths, strict=True)
        ]
        features = {path: feature for path, (_, feature) in flat(builder.info.features)}
    except Exception as error:  # whatever the parsers of TFDS come upon
        reason = f"TFDS cannot read what describes the dataset ({type(error).__name__}: {error})"
        raise ValueError(damage(folder, reason)) from error
    for path, feature in features.items():
        if is_class(feature) and not 0 < feature.num_classes <= MAX_CLASSES:
            reason = f"{path!r} has {feature.num_classes} classes"
            raise ValueError(damage(folder / "features.json", reason))
    for file, length in shards:
        if not file.is_file():
            raise ValueError(damage(file, "it is missing"))
        try:
            reader = ArrayRecordReader(str(file))
            count = reader.num_records()
            reader.close()
        except RuntimeError as error:
            raise ValueError(damage(file, str(error))) from error
        if count != length:
            raise ValueError(damage(file, f"{count} examples, dataset_info.json says {length}"))
    return builder
