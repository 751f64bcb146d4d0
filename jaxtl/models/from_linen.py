"""Any linen module as a backbone of one block."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from jaxtl.models.blocks import Block, identity
from jaxtl.models.model import from_blocks
from jaxtl.paths import unknown
from jaxtl.plan import Head, Model, PyTree

Output = str | int | Callable[[PyTree], PyTree] | None
"""Which of a module's outputs the features are: a key or a field, an index, a function, or all."""


def from_linen(
    module: nn.Module,
    heads: Mapping[str, Head],
    *,
    name: str = "body",
    call: Callable[[nn.Module, PyTree, bool], PyTree] | None = None,
    output: Output = None,
    without: str | None = None,
    before: Callable[[PyTree], PyTree] = identity,
) -> Model:
    """Any linen module as a backbone of one block: inputs [n, ...] -> features [n, ...].

    Args:
        module: its parameters are found under `backbone/<name>/`.
        name: of the block.
        call: (module, inputs, train) -> outputs, where `Block.call`'s default does not fit, such
            as `lambda module, x, train: module(x["ids"], x["mask"], is_eval=not train)`.
        output: which of several outputs the features are: the key of a dictionary, the field of a
            record, the index of a tuple, or a function of them all.
        without: path in the module of a layer that is left out, such as its own classifier
            `head`: that layer has no parameters and hands its inputs on, which are the features
            then. Without it, what a classifier puts out are the features.

    Raises:
        ValueError: this is no linen module; from `init`, as `from_blocks`, there is no such layer
            or no such output.
    """
    block = Block(name, module, selector(name, output), call, without)
    return from_blocks([block], heads, before=before)


def selector(name: str, output: Output) -> Callable[[PyTree], PyTree]:
    """The function of a block's outputs that `output` means."""
    if output is None:
        return identity
    if callable(output):
        return output

    def select(outputs: PyTree) -> PyTree:
        choices = names_of(outputs)
        if output not in choices:
            given = f"a {type(outputs).__name__}"
            reason = unknown("output", output, choices) if choices else f"it gives {given}."
            raise ValueError(f"block {name!r}, `output`: {reason}")
        return choices[output]

    return select


def names_of(outputs: Any) -> dict[str | int, Any]:
    """{key, field or index: what stands there} of several outputs; empty for an array."""
    if isinstance(outputs, Mapping):
        return dict(outputs)
    fields = getattr(outputs, "_fields", None) or getattr(outputs, "__dataclass_fields__", ())
    by_index = dict(enumerate(outputs)) if isinstance(outputs, list | tuple) else {}
    return {**by_index, **{field: getattr(outputs, field) for field in fields}}
