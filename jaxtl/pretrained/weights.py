"""Published weights as the leaves of a model: strictly loaded, reported, and written back."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtl.pretrained.files import read_arrays, sha256
from jaxtl.pretrained.fit import Fit, fit
from jaxtl.pretrained.locations import fetch
from jaxtl.pretrained.scheme import Scheme


def weights(
    location: str | Path, schemes: Sequence[Scheme], *, head: str | None = None
) -> "FileWeights":
    """Published weights for a stage to start from; nothing is read before they are asked for.

    Reading is strict: each parameter and batch statistic that is wanted must be in the file, in its
    shape, or all that do not fit are listed in one error.

    Args:
        location: of a `.safetensors`, `.npz`, `.pth`, `.pt` or `.bin` file: a path,
            `hf://owner/name/file`, `gs://bucket/file` or `s3://bucket/file`.
        schemes: the names it may use, such as `RESNET`; those that fit best are taken.
        head: the model's head that is the file's classifier, such as "imagenet"; without it the
            file's is unused.
    """
    return FileWeights(str(location), tuple(schemes), head)


@dataclasses.dataclass(frozen=True)
class FileWeights:
    """A `plan.Weights` in a file; two are equal if `location`, `schemes` and `head` are."""

    location: str
    schemes: tuple[Scheme, ...] = dataclasses.field(hash=False)
    head: str | None = None

    @property
    def name(self) -> str:
        return self.location

    def digest(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        return sha256(fetch(self.location))

    def read(self, wanted: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], str]:
        """As `plan.Weights`."""
        file = read_arrays(fetch(self.location))
        best = self._best(wanted, file)
        if len(best.leaves) < len(wanted):
            first = (
                f"cannot load {len(wanted) - len(best.leaves)} of {len(wanted)} arrays from "
                f"{self.location} by the names of {best.scheme.name}:"
            )
            raise ValueError("\n  ".join((first, *best.complaints(file))))
        return best.leaves, f"{self.location}: {best.report(file)}"

    def save(self, path: Path, leaves: Mapping[str, np.ndarray]) -> None:
        """As `plan.Weights`; a leaf that has no name in the file keeps its own path as its name."""
        from safetensors.numpy import save

        leaves = {place: np.asarray(leaf) for place, leaf in leaves.items()}
        entries = self._best(leaves, read_arrays(fetch(self.location))).entries
        arrays: dict[str, np.ndarray] = {}
        fused: dict[str, list[str]] = {}
        for place, leaf in leaves.items():
            if place not in entries:
                arrays[place] = leaf
            elif entries[place].parts == 1:
                arrays[entries[place].name] = entries[place].layout.write(leaf)
            else:
                fused.setdefault(entries[place].name, []).append(place)
        for name, places in fused.items():
            places.sort(key=lambda place: entries[place].part)
            if len(places) == entries[places[0]].parts:
                arrays[name] = np.concatenate([entries[p].layout.write(leaves[p]) for p in places])
            else:
                arrays |= {place: leaves[place] for place in places}
        arrays = {name: array.copy(order="C") for name, array in arrays.items()}
        # `save_file` would let nobody but the owner read it. Transformers wants the format said.
        path.write_bytes(save(arrays, {"format": "pt"}))

    def _best(self, wanted: Mapping[str, Any], file: Mapping[str, np.ndarray]) -> Fit:
        """By the first of the schemes that find the most."""
        fits = [fit(scheme, self.head, wanted, file) for scheme in self.schemes]
        return max(fits, key=lambda found: len(found.leaves))
