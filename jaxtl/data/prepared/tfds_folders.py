"""Where TFDS keeps prepared datasets, and which ones it can prepare, without importing it."""

import functools
import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

from jaxtl.paths import closest

OWN = {"usps": "jaxtl.data.prepared.usps"}  # builders of ours and the modules that register them


def data_root(data_dir: str | os.PathLike | None) -> str:
    """The argument, else `TFDS_DATA_DIR`, else `~/tensorflow_datasets`."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return str(Path(chosen).expanduser())


def _place(root: str) -> str:
    """The folder of the data, and the variable if that would have named another one."""
    unset = not os.environ.get("TFDS_DATA_DIR") and root == data_root(None)
    return f"{root} (TFDS_DATA_DIR is not set)" if unset else root


def prepared(name: str, root: str) -> Path:
    """Folder of a prepared dataset.

    Raises:
        ValueError: it is unknown, not prepared, prepared in a format that needs TensorFlow, or its
            `dataset_info.json` is damaged.
    """
    folder = find_folder(name, root)
    base = parse_name(name)[0]
    command = f"python launch.py --prepare={name}"
    if folder is None and (emptied := _emptied(name, root)):
        raise ValueError(damage(emptied[0], "it has no dataset_info.json"))
    if folder is None and (base in known_names() or (Path(root) / base).is_dir()):
        others = [other for other in prepared_names(root) if other.split("/")[0] == base]
        there = f" (there: {', '.join(others)})" if others else ""
        raise ValueError(
            f"dataset {name!r} is not prepared in {_place(root)}{there}. Prepare it with: {command}"
        )
    if folder is None:
        local = prepared_names(root)
        near = ", ".join(closest(name, known_names() | set(local))) or "none"
        raise ValueError(
            f"unknown dataset {name!r}. Closest names: {near}. "
            f"Prepared in {_place(root)}: {', '.join(local) or 'none'}."
        )
    if (form := _info(folder).get("fileFormat", "tfrecord")) != "array_record":
        raise ValueError(
            f"dataset {name!r} in {folder} is stored as {form}, which only TensorFlow reads. "
            f"Move that folder away, then: {command}"
        )
    return folder


def find_folder(name: str, root: str) -> Path | None:
    """`<root>/<name>[/<config>]/<version>` of the newest prepared version, or None."""
    base, config, version = parse_name(name)
    default = Path(root, base, ".config", "metadata.json")
    if config is None and default.is_file():
        config = _object(default).get("default_config_name")
        if not isinstance(config, str):
            raise ValueError(damage(default, "it has no default_config_name"))
    parent = Path(root, base, config or "")
    found = [path.parent for path in parent.glob("*/dataset_info.json")]
    found = [path for path in found if _version(path) and version in (None, path.name)]
    return max(found, key=_version, default=None)


def _emptied(name: str, root: str) -> list[Path]:
    """Folders of versions that TFDS takes for prepared, but which do not say what they hold."""
    base, config, version = parse_name(name)
    parents = (
        [Path(root, base, config)] if config else [Path(root, base), *Path(root, base).glob("*")]
    )
    folders = [path for parent in parents for path in parent.glob("*") if path.is_dir()]
    return [
        path
        for path in folders
        if _version(path)
        and version in (None, path.name)
        and not (path / "dataset_info.json").exists()
    ]


def parse_name(name: str) -> tuple[str, str | None, str | None]:
    """`name/config:version` -> its three parts."""
    match = re.fullmatch(r"(\w+)(?:/([\w.+-]+))?(?::([\d.]+))?", name)
    if match is None:
        raise ValueError(
            f"dataset name {name!r} is not of the form name, name/config or name:1.2.3"
        )
    return match.groups()


def split_names(folder: Path) -> tuple[str, ...]:
    """Names of the splits in a prepared folder."""
    return tuple(split["name"] for split in _info(folder)["splits"])


def prepared_names(root: str) -> list[str]:
    """`name` or `name/config` of all that is prepared in a data directory."""
    infos = [*Path(root).glob("*/*/dataset_info.json"), *Path(root).glob("*/*/*/dataset_info.json")]
    return sorted({path.parent.parent.relative_to(root).as_posix() for path in infos})


@functools.cache
def known_names() -> frozenset[str]:
    """Datasets that TFDS or we can prepare, from TFDS's files: its own list needs TensorFlow."""
    root = Path(importlib.util.find_spec("tensorflow_datasets").origin).parent
    names = {path.parent.name for path in root.glob("**/*_dataset_builder.py")}
    for path in root.glob("*/__init__.py"):
        for exported in re.findall(r"^from \S+ import ([A-Z]\w+)$", path.read_text(), re.MULTILINE):
            if path.parent.name not in ("core", "testing") and not exported.endswith("Config"):
                names.add(_snake_case(exported))
    return frozenset(names | OWN.keys())


def _snake_case(name: str) -> str:
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


def _version(path: Path) -> tuple[int, ...]:
    parts = path.name.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def damage(file: Path, reason: str) -> str:
    """Message for a file of a prepared dataset that is not what was written."""
    return (
        f"{file} is damaged: {' '.join(reason.split())[:300]}. Move the folder of the dataset "
        "away and prepare it again (python launch.py --prepare=NAME)"
    )


def _info(folder: Path) -> dict[str, Any]:
    """What is read of `dataset_info.json`, after a look at its types."""
    file = folder / "dataset_info.json"
    info = _object(file)
    splits = info.get("splits")
    if not isinstance(splits, list) or not all(isinstance(split, dict) for split in splits):
        raise ValueError(damage(file, "its splits are no list of objects"))
    for split in splits:
        lengths = split.get("shardLengths", [])  # left out where there are no examples
        if not isinstance(split.get("name"), str):
            raise ValueError(damage(file, "a split has no name"))
        if not isinstance(lengths, list) or not all(str(n).isdecimal() for n in lengths):
            raise ValueError(damage(file, f"shardLengths of {split['name']!r} are no numbers"))
    return info


def _object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(damage(file, f"it is not JSON ({error})")) from error
    if not isinstance(content, dict):
        raise ValueError(damage(file, "it is no JSON object"))
    return content
