"""Where TFDS keeps prepared datasets, whether they are whole, and which ones it can prepare.

TFDS itself is imported only when a dataset is opened.
"""

import functools
import importlib.util
import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtl.data.prepared.tfds_features import is_class, leaf_features
from jaxtl.paths import closest

MAX_CLASSES = 2**20
BUILDERS = (
    *("mnist_m", "multi_domain_sentiment", "notmnist", "office31", "office_caltech10_surf", "usps"),
)
OWN = {name: f"jaxtl.data.prepared.builders.{name}" for name in BUILDERS}
"""Builders of ours and the modules that register them."""


DEFAULT_ROOT = "~/tensorflow_datasets"


class NotPrepared(ValueError):
    """A dataset that can be prepared, and is not.

    Attributes:
        name: as it was asked for.
        root: the folder of all datasets.
        hint: the other configs of the dataset that are prepared, in words.
    """

    def __init__(self, name: str, root: str, hint: str):
        self.name, self.root, self.hint = name, root, hint
        super().__init__(not_prepared([self]))


def not_prepared(errors: Sequence[NotPrepared]) -> str:
    """One message for datasets that are not prepared in a folder, with the command."""
    first, place = errors[0], _place(errors[0].root)
    command = preparing([error.name for error in errors], first.root)
    if len(errors) == 1:
        dataset = f"dataset {first.name!r} is not prepared in {place}{first.hint}"
        return f"{dataset}. Prepare it with: {command}"
    names = ", ".join(f"{error.name}{error.hint}" for error in errors)
    return (
        f"{len(errors)} datasets are not prepared in {place}: {names}. Prepare them with: {command}"
    )


def preparing(names: Sequence[str], root: str) -> str:
    """The command that prepares datasets there."""
    usual = root == str(Path(DEFAULT_ROOT).expanduser())
    place = "" if usual else f" --run.data_dir={shlex.quote(root)}"
    return f"python launch.py --prepare={','.join(names)}{place}"


def data_root(data_dir: str | os.PathLike | None) -> str:
    """The argument, else `TFDS_DATA_DIR`, else `~/tensorflow_datasets`."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or DEFAULT_ROOT
    return str(Path(chosen).expanduser())


def _place(root: str) -> str:
    """The folder of the data, and the variable if that would have named another one."""
    unset = not os.environ.get("TFDS_DATA_DIR") and root == data_root(None)
    return f"{root} (TFDS_DATA_DIR is not set)" if unset else root


def prepared_folder(name: str, root: str) -> Path:
    """Folder of a prepared dataset.

    Raises:
        NotPrepared: it can be prepared.
        ValueError: it is unknown, prepared in a format that needs TensorFlow, or its
            `dataset_info.json` is damaged.
    """
    folder, base = find_folder(name, root), parse_name(name)[0]
    if folder is None:
        if versions := _version_folders(name, root):
            raise ValueError(damage(versions[-1], "it has no dataset_info.json"))
        local = prepared_names(root)
        if base in known_names() or (Path(root) / base).is_dir():
            others = [other for other in local if other.split("/")[0] == base]
            raise NotPrepared(name, root, f" (there: {', '.join(others)})" if others else "")
        near = ", ".join(closest(name, known_names() | set(local))) or "none"
        raise ValueError(
            f"unknown dataset {name!r}. Closest names: {near}. "
            f"Prepared in {_place(root)}: {', '.join(local) or 'none'}."
        )
    if (
        form := _object(folder / "dataset_info.json").get("fileFormat", "tfrecord")
    ) != "array_record":
        raise ValueError(
            f"dataset {name!r} in {folder} is stored as {form}, which only TensorFlow reads. "
            f"Move that folder away, then: {preparing([name], root)}"
        )
    return folder


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
        features = leaf_features(builder.info.features)
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


def find_folder(name: str, root: str) -> Path | None:
    """`<root>/<name>[/<config>]/<version>` of the newest prepared version, or None."""
    folders = reversed(_version_folders(name, root))
    return next((path for path in folders if (path / "dataset_info.json").is_file()), None)


def _version_folders(name: str, root: str) -> list[Path]:
    """Folders that TFDS takes for prepared, oldest version first."""
    base, config, version = parse_name(name)
    default = Path(root, base, ".config", "metadata.json")
    if config is None and default.is_file():
        config = _object(default).get("default_config_name")
        if not isinstance(config, str):
            raise ValueError(damage(default, "it has no default_config_name"))
        if not Path(root, base, config).is_dir():
            config = None  # perhaps somebody's builder without configs
    folders = [path for path in Path(root, base, config or "").glob("*") if path.is_dir()]
    folders = [path for path in folders if _version(path) and version in (None, path.name)]
    return sorted(folders, key=_version)


def parse_name(name: str) -> tuple[str, str | None, str | None]:
    """`name/config:version` -> its three parts."""
    match = re.fullmatch(r"(\w+)(?:/([\w.+-]+))?(?::([\d.]+))?", name)
    if match is None:
        near = ", ".join(closest(name, known_names()))
        raise ValueError(
            f"dataset name {name!r} is not of the form name, name/config or name:1.2.3"
            + (f". Closest names: {near}." if near else "")
        )
    return match.groups()


def split_names(folder: Path) -> tuple[str, ...]:
    """Names of the splits in a prepared folder."""
    file = folder / "dataset_info.json"
    splits = _object(file).get("splits")
    if not isinstance(splits, list) or not all(isinstance(split, dict) for split in splits):
        raise ValueError(damage(file, "its splits are no list of objects"))
    names = tuple(split.get("name") for split in splits)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(damage(file, "a split has no name"))
    return names


def prepared_names(root: str) -> list[str]:
    """`name` or `name/config` of all that is prepared in a data directory."""
    infos = [*Path(root).glob("*/*/dataset_info.json"), *Path(root).glob("*/*/*/dataset_info.json")]
    return sorted({path.parent.parent.relative_to(root).as_posix() for path in infos})


@functools.cache
def known_names() -> frozenset[str]:
    """Datasets that TFDS or we can prepare, from TFDS's files: its own list needs TensorFlow."""
    from tensorflow_datasets.core.naming import camelcase_to_snakecase

    root = Path(importlib.util.find_spec("tensorflow_datasets").origin).parent
    names = {path.parent.name for path in root.glob("**/*_dataset_builder.py")}
    for path in root.glob("*/__init__.py"):
        for exported in re.findall(r"^from \S+ import ([A-Z]\w+)$", path.read_text(), re.MULTILINE):
            if path.parent.name not in ("core", "testing") and not exported.endswith("Config"):
                names.add(camelcase_to_snakecase(exported))
    return frozenset(names | OWN.keys())


def _version(path: Path) -> tuple[int, ...]:
    parts = path.name.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def damage(file: Path, reason: str) -> str:
    """Message for a file of a prepared dataset that is not what was written."""
    return (
        f"{file} is damaged: {' '.join(reason.split())[:300]}. Move the folder of the dataset "
        "away and prepare it again (python launch.py --prepare=NAME)"
    )


def _object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(damage(file, f"it is not JSON ({error})")) from error
    if not isinstance(content, dict):
        raise ValueError(damage(file, "it is no JSON object"))
    return content
