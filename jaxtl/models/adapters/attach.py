"""What all adapters share: they are put on a model, and find their parameters again."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxtl import paths
from jaxtl.models.model import Adapter
from jaxtl.plan import Model, Params


def attach(model: Model, adapter: Adapter) -> Model:
    """A model with parameters under `<name>/...`; its own keep their paths and values.

    Raises:
        ValueError: the name has a slash.
    """
    if "/" in adapter.name:
        raise ValueError(f"the name of an adapter has no slash, got {adapter.name!r}.")
    return dataclasses.replace(model, adapters=(*model.adapters, adapter))


def leaves_of(blocks: Sequence[str], params: Params, name: str) -> dict[str, dict[str, Any]]:
    """{path of a layer in one of the blocks: {last part of the path: leaf}} of an adapter."""
    leaves: dict[str, dict[str, Any]] = {}
    for path, leaf in paths.flatten(params.get(name, {})).items():
        layer, last = path.rsplit("/", 1)
        if {*layer.split("/")[1:2]} & {*blocks}:
            leaves.setdefault(layer, {})[last] = leaf
    return leaves
