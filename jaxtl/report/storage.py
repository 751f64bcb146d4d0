"""One file an arm, so that a report can be made again with arms of earlier runs."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from jaxtl.files import Damaged, NotRead, is_of_system, replacing, system_error
from jaxtl.measure.results import ArmResult, reason

LONGEST = 150  # characters; file systems take 255 with what stands around them
FORMAT = 2
TREES = ("metrics", "not_finite", "analyses")


def file_stem(name: str) -> str:
    """A name as part of a file's name: odd characters escaped, a long one cut and told apart."""
    stem = quote(name, safe=" ", errors="surrogatepass")
    if len(stem) <= LONGEST:
        return stem
    digest = hashlib.sha256(stem.encode()).hexdigest()[:12]
    return f"{stem[: LONGEST - 16]}...{digest}"


def path_of(folder: str | os.PathLike, arm: str) -> Path:
    """Where the arm is stored: `<folder>/<arm>.npz`."""
    return Path(folder) / f"{file_stem(arm)}.npz"


def save(folder: str | os.PathLike, arm: ArmResult) -> None:
    """Writes the arm in one step, without pickles."""
    fields = {field.name: getattr(arm, field.name) for field in dataclasses.fields(arm)}
    leaves = list(_leaves({name: fields.pop(name) for name in TREES}))
    header = {"format": FORMAT, "keys": [keys for keys, _ in leaves], "values": fields}
    with replacing(path_of(folder, arm.name)) as partial, partial.open("wb") as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            header=json.dumps(header),
            **{str(index): leaf for index, (_, leaf) in enumerate(leaves)},
        )


def load(folder: str | os.PathLike, arm: str) -> ArmResult:
    """Reads what `save` wrote.

    Raises:
        ValueError: another version of jaxtl wrote it.
        Damaged: it is not as it was written.
        FileNotFoundError: there is none.
        NotRead: the system does not hand it out.
    """
    return _read(folder, arm, _arm)


def load_stages(folder: str | os.PathLike, arm: str) -> tuple[str, ...]:
    """The names of an arm's stages, in order; raises as `load`."""
    return _read(folder, arm, lambda header, arrays: tuple(header["values"]["stages"]))


def _read(folder: str | os.PathLike, arm: str, take: Callable[..., Any]) -> Any:
    """What is taken of (header, arrays) of an arm's file."""
    path = path_of(folder, arm)
    again = f"run arm {arm!r} again, which trains nothing anew"
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            if header.get("format") == FORMAT:
                return take(header, file)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever zipfile, NumPy and JSON make of garbled bytes
        if is_of_system(error):
            raise NotRead(system_error(error), reason(error), str(path)) from error
        raise Damaged(f"{path} is damaged: {reason(error)}; {again}") from error
    raise ValueError(f"another version of jaxtl wrote {path.name}; {again}")


def _arm(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> ArmResult:
    fields: dict[str, Any] = {name: {} for name in TREES}
    for index, (*parents, last) in enumerate(header["keys"]):
        node = fields
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = arrays[str(index)]
    fields |= header["values"]
    fields["stages"] = tuple(fields["stages"])
    fields["failures"] = {int(seed): tuple(at) for seed, at in fields["failures"].items()}
    return ArmResult(**fields)


def _leaves(tree: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    if isinstance(tree, Mapping):
        for key, subtree in tree.items():
            yield from _leaves(subtree, (*keys, key))
    else:
        yield keys, np.asarray(tree)
