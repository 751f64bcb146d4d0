"""Names of convolutional networks whose layers are a convolution and its BatchNorm."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from jaxtl.pretrained.names.scheme import CONV, DENSE, Entry, Scheme

_LEAVES = {
    "kernel": "weight",
    "norm/scale": "weight",
    "norm/bias": "bias",
    "norm/mean": "running_mean",
    "norm/var": "running_var",
}
_LAYER = re.compile(rf"backbone/(.+?)/({'|'.join(_LEAVES)})")
_HEAD = re.compile(r"heads/[^/]+/(kernel|bias)")


def convolutional(
    name: str,
    layer_names: Callable[[str], tuple[str, str] | None],
    head: str,
    config: Mapping[str, tuple[Any, ...]] = {},
) -> Scheme:
    """A scheme of PyTorch.

    Args:
        name: of the project.
        layer_names: a layer's path below `backbone/` -> (name of its convolution, of its
            BatchNorm), None if there is none.
        head: name of the classifier.
        config: as in `Scheme`.
    """

    def entry(path: str) -> Entry | None:
        if match := _HEAD.fullmatch(path):
            kernel = match[1] == "kernel"
            return Entry(f"{head}.weight", DENSE) if kernel else Entry(f"{head}.bias")
        match = _LAYER.fullmatch(path)
        names = layer_names(match[1]) if match else None
        if names is None:
            return None
        if match[2] == "kernel":
            return Entry(f"{names[0]}.weight", CONV)
        return Entry(f"{names[1]}.{_LEAVES[match[2]]}")

    heads = (rf"{re.escape(head)}\..*",)
    return Scheme(name, entry, (r".*num_batches_tracked",), heads=heads, config=config)
