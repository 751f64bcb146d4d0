"""Published weights as the leaves of a model: strictly loaded, reported, and written back."""

import contextlib
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxtl.form import Patterns, checked
from jaxtl.models.adapters import solve
from jaxtl.paths import flatten, matches, nest, select, unknown
from jaxtl.plan import Model, Params, Statistics, Weights
from jaxtl.plan.reading import Wanted
from jaxtl.pretrained.files import read_file, sha256
from jaxtl.pretrained.fit import Fit, fit
from jaxtl.pretrained.foreign import config_problems, roberta_problems
from jaxtl.pretrained.locations import fetch
from jaxtl.pretrained.names.scheme import Entry, Scheme

_PREFIXES = 8
# Of PyTorch's DataParallel and compile, of Lightning and of Sentence Transformers.
_WRAPPING = re.compile(
    r"((module|_orig_mod|model|backbone|net|network|base_model|(0\.)?auto_model)\.)+"
)


@checked
def weights(
    location: str | Path,
    schemes: Scheme | Sequence[Scheme],
    *,
    head: str | None = None,
    unused: Patterns = (),
    prefix: str = "",
) -> "FileWeights":
    """Published weights for a stage to start from; nothing is read before they are asked for.

    Reading is strict, both ways: each parameter and batch statistic that is wanted must be in the
    file, in its shape, as finite numbers; and each array of the file must be read, belong to a
    classifier or to what the stage names as `fresh`, or be harmless by the scheme (counters). What
    does not fit is listed in one error. Not in the arrays, and so not seen, are the number of
    attention heads, the activation, and the order, mean and range of colours; of a `config.json`
    beside the file, the architecture and the activation are compared.

    Args:
        location: of a `.safetensors`, `.npz`, `.pth`, `.pth.tar`, `.pt`, `.bin` or `.ckpt` file: a
            path, `package://name/file`, `hf://owner/name/file`, `gs://bucket/file` or
            `s3://bucket/file`.
        schemes: the names it may use, such as `RESNET`; those that fit best are taken. Prefixes
            that wrappers such as DataParallel, `torch.compile` and Lightning put in front of names
            are taken off, also several in a row, and the report names them.
        head: the model's head that is the file's classifier, such as "imagenet"; without it the
            file's is unused.
        unused: patterns of the names of arrays that are left out on purpose, though the file's
            network computes with them.
        prefix: of the names that are meant, such as "encoder_q." in a file of several networks;
            the others' arrays are left out.

    Raises:
        ValueError: an argument is of another kind.
    """
    schemes = (schemes,) if isinstance(schemes, Scheme) else tuple(schemes)
    if not schemes:
        raise ValueError("`schemes` are names of an architecture, such as pretrained.RESNET")
    return FileWeights(str(location), schemes, head, tuple(unused), prefix)


@checked
def load(
    weights: Weights,
    model: Model,
    params: Params,
    statistics: Statistics,
    *,
    fresh: Patterns = (),
) -> tuple[Params, Statistics, str]:
    """A model's parameters and batch statistics with the published values; a stage does it itself.

    What adapters compute from the kernels is computed from those that were loaded.

    Args:
        weights: such as `pretrained.weights(file, pretrained.RESNET)`.
        params, statistics: as `model.init` gives them.
        fresh: path patterns of the parameters that stay as they are, with the statistics of their
            layers: new heads, adapters.

    Returns:
        (params, statistics, what was loaded, reshaped and left out, in words).

    Raises:
        ValueError: a pattern matches nothing, or the file does not fit, all of which is listed.
    """
    paths, running = flatten(params), flatten(statistics)
    same = select(fresh, paths)
    layers = {path.rsplit("/", 1)[0] for path in same}
    same |= {path for path in running if path.rsplit("/", 1)[0] in layers}
    leaves = paths | running
    wanted = {path: leaf for path, leaf in leaves.items() if path not in same}
    published, report = weights.read(Wanted(wanted, others=same))
    leaves |= {path: jnp.asarray(published[path], leaves[path].dtype) for path in published}
    params, statistics = (nest({path: leaves[path] for path in tree}) for tree in (paths, running))
    return solve(model, params), statistics, report


@dataclasses.dataclass(frozen=True)
class FileWeights:
    """A `plan.Weights` in a file, whose location is its name; equal if all fields are."""

    name: str
    schemes: tuple[Scheme, ...] = dataclasses.field(hash=False)
    head: str | None = None
    unused: tuple[str, ...] = ()
    prefix: str = ""

    def digest(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        return sha256(fetch(self.name))

    def read(self, wanted: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], str]:
        """As `plan.Weights`."""
        self._check_head(wanted)
        path = fetch(self.name)
        file = read_file(path)
        arrays = self._behind_prefix(file.arrays)
        best = self._best(wanted, arrays)
        if twice := self._other_prefixes(best, arrays):
            raise ValueError(
                f"cannot load {self.name}: all names of the model stand in the file more than "
                f"once, behind {', '.join(map(repr, (best.prefix, *twice)))}; say which as `prefix`"
            )
        file_by = f"{self.name} by the names of {best.scheme.name}"
        if missing := len(wanted) - len(best.leaves):
            first = f"cannot load {missing} of {len(wanted)} arrays from {file_by}:"
            raise ValueError("\n  ".join((first, *best.complaints())))
        problems = config_problems(path, best.scheme.config) if best.leaves else []
        problems += roberta_problems(best.file)
        try:
            leftover = best.leftover(self.unused)
        except ValueError as error:
            raise ValueError(f"cannot load {self.name}: {error}") from None
        if leftover:
            remedy = "what the model is right without, name in `unused`, patterns of names"
            problems += [*leftover, remedy]
        if problems:
            first = f"cannot load {file_by}: the file's network computes something else:"
            raise ValueError("\n  ".join((first, *problems)))
        remark = f"\n  {file.remark}" if file.remark else ""
        if self.prefix:
            count = len(file.arrays) - len(arrays)
            remark += f"\n  names behind {self.prefix!r}, not the other {count}"
        return best.leaves, f"{self.name}: {best.report()}{remark}"

    def save(self, path: Path, leaves: Mapping[str, np.ndarray]) -> None:
        """As `plan.Weights`; a leaf that has no name in the file keeps its own path as its name."""
        from safetensors.numpy import save

        leaves = {place: np.asarray(leaf) for place, leaf in leaves.items()}
        arrays = self._behind_prefix(read_file(fetch(self.name)).arrays)
        entries = self._best(leaves, arrays).entries
        entries = {place: entries.get(place, Entry(place)) for place in leaves}
        places_of: dict[str, list[str]] = {}
        for place, entry in entries.items():
            places_of.setdefault(entry.name, []).append(place)
        arrays: dict[str, np.ndarray] = {}
        for name, places in places_of.items():
            places.sort(key=lambda place: entries[place].part)
            parts = [entries[place].layout.write(leaves[place]) for place in places]
            if len(parts) == entries[places[0]].parts:
                arrays[name] = np.concatenate(parts) if len(parts) > 1 else parts[0]
            else:  # a fused array that lacks a part
                arrays |= {place: leaves[place] for place in places}
        arrays = {name: array.copy(order="C") for name, array in arrays.items()}
        # `save_file` would let nobody but the owner read it. Transformers wants the format said.
        path.write_bytes(save(arrays, {"format": "pt"}))

    def _behind_prefix(self, file: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        if not self.prefix:
            return file
        names = [name for name in file if name.startswith(self.prefix)]
        if not names:
            starts = {f"{name.partition('.')[0]}." for name in file}
            reason = unknown("prefix", self.prefix, starts)
            raise ValueError(f"cannot load {self.name}: {reason}")
        return {name.removeprefix(self.prefix): file[name] for name in names}

    def _other_prefixes(self, best: Fit, file: Mapping[str, np.ndarray]) -> list[str]:
        """Prefixes behind which the model's names all stand too."""
        names = {best.entries[path].name for path in best.leaves}
        return [
            prefix
            for prefix in ("", *self._prefixes(file))
            if names and prefix != best.prefix and all(prefix + name in file for name in names)
        ]

    def _prefixes(self, file: Mapping[str, np.ndarray]) -> list[str]:
        """What wrappers put in front of names, but for those that are left out on purpose."""
        prefixes = {
            name[: end + 1]
            for name in file
            if (match := _WRAPPING.match(name)) and not self._is_unused(name)
            for end in range(match.end())
            if name[end] == "."
        }
        return sorted(prefixes)[:_PREFIXES]

    def _is_unused(self, name: str) -> bool:
        with contextlib.suppress(re.error):  # `Fit.leftover` says so
            return matches(self.unused, name)
        return False

    def _check_head(self, wanted: Mapping[str, Any]) -> None:
        others = getattr(wanted, "others", ())
        if self.head is None or others is None:
            return
        heads = {path.split("/")[1] for path in (*wanted, *others) if path.startswith("heads/")}
        if heads and self.head not in heads:
            raise ValueError(f"cannot load {self.name}: {unknown('head', self.head, heads)}")

    def _best(self, wanted: Mapping[str, Any], file: Mapping[str, np.ndarray]) -> Fit:
        """By the first of the schemes that find the most, with or without a wrapper's prefix."""
        best: Fit | None = None
        for prefix in ("", *self._prefixes(file)):
            if len({name.removeprefix(prefix) for name in file}) < len(file):
                continue  # two arrays would have one name
            for scheme in self.schemes:
                candidate = fit(scheme, self.head, wanted, file, prefix)
                if best is None or len(candidate.leaves) > len(best.leaves):
                    best = candidate
            if len(best.leaves) == len(wanted):
                break
        return best
