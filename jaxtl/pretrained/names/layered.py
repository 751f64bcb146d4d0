"""Tables of names for architectures of numbered layers, and `Scheme.entry` made of them."""

import re
from collections.abc import Callable, Mapping

from jaxtl.pretrained.names.scheme import DENSE, SAME, Entry

_NUMBER = re.compile(r"(?<=/layer_)\d+")
_COUNT = re.compile(r"(?<=\.)\d+(?=\.)")
_HEAD = re.compile(r"(?<=^heads/)[^/]+")


def layered(table: Mapping[str, Entry], prefix: str = "") -> Callable[[str], Entry | None]:
    """`Scheme.entry` of a table.

    Args:
        table: {path of a leaf without `backbone/`: Entry}, with `*` for a layer's number in both;
            `heads/*/kernel` and `heads/*/bias` are those of the file's classifier.
        prefix: of all names in the file but the classifier's.
    """

    def entry(path: str) -> Entry | None:
        if path.startswith("heads/"):
            return table.get(_HEAD.sub("*", path))
        layer = table.get(_NUMBER.sub("*", path).removeprefix("backbone/"))
        if layer is None:
            return None
        number = _NUMBER.search(path)
        name = layer.name.replace("*", number.group()) if number else layer.name
        return layer._replace(name=prefix + name)

    return entry


def places(table: Mapping[str, Entry], prefix: str = "") -> Callable[[str], dict[str, Entry]]:
    """`Scheme.places` of a table, for what belongs to the backbone.

    Args:
        table, prefix: as in `layered`.
    """
    by_name: dict[str, list[str]] = {}
    for path, entry in table.items():
        if not path.startswith("heads/"):
            by_name.setdefault(prefix + entry.name, []).append(path)

    def find(name: str) -> dict[str, Entry]:
        number, starred = _COUNT.search(name), _COUNT.sub("*", name, count=1)
        layer = number.group() if number else "*"
        return {
            f"backbone/{path.replace('*', layer)}": table[path]._replace(name=name)
            for path in by_name.get(starred, ())
        }

    return find


def torch_names(
    modules: Mapping[str, str], norm: tuple[str, str] = ("weight", "bias")
) -> dict[str, Entry]:
    """A table of PyTorch's linear layers, embeddings and layer norms.

    Args:
        modules: {our module: theirs}; ours is a layer norm if its name starts with `norm`.
        norm: what a layer norm calls its scale and bias.
    """
    table = {}
    for module, name in modules.items():
        if module.rpartition("/")[2].startswith("norm"):
            for leaf, name_of_leaf in zip(("scale", "bias"), norm, strict=True):
                table[f"{module}/{leaf}"] = Entry(f"{name}.{name_of_leaf}")
        else:
            table[f"{module}/kernel"] = Entry(f"{name}.weight", DENSE)
            table[f"{module}/embedding"] = Entry(f"{name}.weight", SAME)
            table[f"{module}/bias"] = Entry(f"{name}.bias")
    return table
