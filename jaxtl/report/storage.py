"""One file an arm, so that a report can be made again with arms of earlier runs."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from jaxtl.files import replacing
from jaxtl.measure.results import ArmResult

LONGEST = 150  # characters; file systems take 255 with what stands around them
_ARRAYS = ("metrics", "forgetting", "curves", "confusion", "features")
_VALUES = (
    "name",
    "stages",
    "trainable_parameters",
    "total_parameters",
    "train_seconds",
    "steps_per_second",
    "step_memory_mb",
    "class_names",
)


def file_stem(name: str) -> str:
    """A name as part of a file's name: odd characters escaped, a long one cut and told apart."""
    stem = quote(name, safe=" ", errors="surrogatepass")
    if len(stem) <= LONGEST:
        return stem
    digest = hashlib.sha256(stem.encode()).hexdigest()[:12]
    return f"{stem[: LONGEST - 16]}...{digest}"


def path_of(folder: str | os.PathLike, arm: str) -> Path:
    """Where the arm is kept: `<folder>/<arm>.npz`."""
    return Path(folder) / f"{file_stem(arm)}.npz"


def save(folder: str | os.PathLike, arm: ArmResult) -> None:
    """Writes the arm in one step, without pickles."""
    path = path_of(folder, arm.name)
    leaves = list(_leaves({name: getattr(arm, name) for name in _ARRAYS}))
    header = {
        "keys": [keys for keys, _ in leaves],
        "values": {name: getattr(arm, name) for name in _VALUES},
    }
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            header=json.dumps(header),
            **{str(index): leaf for index, (_, leaf) in enumerate(leaves)},
        )


def load(folder: str | os.PathLike, arm: str) -> ArmResult:
    """Reads what `save` wrote."""
    with np.load(path_of(folder, arm), allow_pickle=False) as file:
        header = json.loads(str(file["header"]))
        arrays: dict[str, Any] = {name: {} for name in _ARRAYS}
        for index, (*parents, last) in enumerate(header["keys"]):
            node = arrays
            for key in parents:
                node = node.setdefault(key, {})
            node[last] = file[str(index)]
    values = header["values"]
    values["stages"] = tuple(values["stages"])
    values["class_names"] = {key: tuple(names) for key, names in values["class_names"].items()}
    arrays["features"] = {
        domain: (pair["features"], pair["labels"]) for domain, pair in arrays["features"].items()
    }
    return ArmResult(**values, **arrays)


def _leaves(tree: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    if isinstance(tree, tuple):
        tree = {"features": tree[0], "labels": tree[1]}
    if isinstance(tree, Mapping):
        for key, subtree in tree.items():
            yield from _leaves(subtree, (*keys, key))
    else:
        yield keys, np.asarray(tree)
