"""What a finished or interrupted stage is: the answer to "may this run go on from it?"."""

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jaxtl
from jaxtl.plan import Weights

Identity = dict[str, Any]


@functools.cache
def sources_digest() -> str:
    """SHA-256 of jaxtl's own source files."""
    digest = hashlib.sha256()
    root = Path(jaxtl.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def file_digest(path: str | os.PathLike) -> str:
    """SHA-256 of one file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def identity(
    stage: str,
    record: Mapping[str, Any],
    experiment_digest: str,
    source_run: str,
    weights: Weights | None,
    parent: Identity | None,
) -> Identity:
    """All that the weights of a stage depend on, as JSON.

    Args:
        record: config, seeds and dtype of the run.
        weights: published ones that it starts from.
    """
    return {
        "stage": stage,
        **json.loads(json.dumps(record)),
        "experiment_file": experiment_digest,
        "jaxtl_sources": sources_digest(),
        "source_run": source_run or None,
        "weights": weights.digest() if weights else None,
        "parent": digest(parent) if parent else None,
    }


def digest(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line for each entry in which two JSON objects differ."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after, name = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{name}.")
        elif before != after:
            lines.append(f"{name}: there {before!r}, now {after!r}")
    return lines
