"""LoRA and DoRA adapters in the files of PEFT, read without it."""

import dataclasses
import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtl.form import checked
from jaxtl.models import adapters
from jaxtl.paths import closest
from jaxtl.plan import Model, Weights
from jaxtl.plan.reading import Wanted
from jaxtl.pretrained.archives import shorten
from jaxtl.pretrained.files import read_file, sha256
from jaxtl.pretrained.fit import convert, fit
from jaxtl.pretrained.locations import fetch
from jaxtl.pretrained.names.scheme import Entry, Mismatch, Scheme

PREFIX = "base_model.model."
_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_CONFIG_BYTES = 2**20
_PART = re.compile(r"(.+)\.lora_(embedding_)?(A|B|magnitude_vector)(\.weight)?")
# What would compute something else than W + scale * A B; PEFT's defaults of them are false.
_OTHERS = (
    *("lora_bias", "use_qalora", "layer_replication", "alora_invocation_tokens", "use_bdlora"),
    *("target_parameters", "trainable_token_indices", "arrow_config", "kasa_config"),
    *("velora_config", "monteclora_config", "megatron_config"),
)
# Which start from a part of the base's kernels and take it out of them.
_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")


@checked
def peft(
    location: str | Path,
    schemes: Scheme | Sequence[Scheme],
    *,
    head: str | None = None,
    name: str = "lora",
) -> "Peft":
    """An adapter that PEFT's `save_pretrained` wrote, or `save_peft`; nothing is read before.

    adapter = pretrained.peft("my-adapter", pretrained.BERT, head="topic")
    model = adapter.attach(models.bert("bert-base", heads, "pooler"))
    Stage(..., model=model, weights=adapter.over(pretrained.weights(file, pretrained.BERT)))

    Args:
        location: of the folder with `adapter_config.json` and `adapter_model.safetensors` (or
            `.bin`), in any form that `weights` takes, such as `hf://owner/name`.
        schemes: the names it may use, such as `BERT` or `VIT`.
        head: the model's head that is the file's classifier (`modules_to_save`); without it, the
            file's is unused.
        name: of the adapter in the model; kernels with other ranks or scales than the first are
            adapted under `<name>_2`, and so on.

    Raises:
        ValueError: an argument is of another kind.
    """
    schemes = (schemes,) if isinstance(schemes, Scheme) else tuple(schemes)
    return Peft(str(location).rstrip("/"), schemes, head, name)


class _Part(NamedTuple):
    """What a file holds for one kernel of the model.

    Attributes:
        group: (rank, scale).
        leaves: {"a", "b" and, for DoRA, "magnitude": array}, as the model's adapters have them.
    """

    group: tuple[int, float]
    leaves: Mapping[str, np.ndarray]


class _Content(NamedTuple):
    """An adapter as it is read.

    Attributes:
        scheme: by whose names.
        parts: {path of a kernel: its part}.
        others: {name: array} of whole arrays that take the place of the base's.
        is_dora: magnitudes are among the leaves.
    """

    scheme: Scheme
    parts: Mapping[str, _Part]
    others: Mapping[str, np.ndarray]
    is_dora: bool


@dataclasses.dataclass(frozen=True)
class Peft:
    """An adapter in a folder; a function from a model to a model, and its values."""

    location: str
    schemes: tuple[Scheme, ...] = dataclasses.field(hash=False)
    head: str | None = None
    name: str = "lora"

    def attach(self, model: Model) -> Model:
        """The model with adapters of the file's ranks and scales on the file's kernels.

        Raises:
            ValueError: the files cannot be read, are of another method than LoRA and DoRA, or hold
                what no scheme has a name for; from `init`, the model lacks a kernel of theirs.
        """
        content = self._content
        build = adapters.dora if content.is_dora else adapters.lora
        for name, paths in self._groups.items():
            rank, scale = content.parts[paths[0]].group
            targets = [re.escape(path) for path in paths]
            model = build(model, targets, rank, alpha=scale * rank, name=name)
        return model

    def leaves(self) -> dict[str, np.ndarray]:
        """{path: array} of the adapters' parameters, such as `lora/backbone/layer_0/.../a`."""
        return {
            f"{name}/{path.removesuffix('/kernel')}/{leaf}": array
            for name, paths in self._groups.items()
            for path in paths
            for leaf, array in self._content.parts[path].leaves.items()
        }

    def over(self, base: Weights) -> "PeftWeights":
        """Weights for a stage: the adapter's values, and those of its base for all else."""
        return PeftWeights(self, base)

    @property
    def files(self) -> tuple[Path, Path]:
        """The config and the arrays."""
        config = fetch(f"{self.location}/adapter_config.json")
        try:
            return config, fetch(f"{self.location}/{_FILES[0]}")
        except ValueError as missing:
            try:
                return config, fetch(f"{self.location}/{_FILES[1]}")
            except ValueError:
                raise missing from None

    @functools.cached_property
    def _content(self) -> _Content:
        config, arrays = self.files
        return _read(self.location, _config(config), read_file(arrays).arrays, self.schemes)

    @functools.cached_property
    def _groups(self) -> dict[str, list[str]]:
        """{name of an adapter: paths of its kernels}, which have one rank and scale."""
        groups: dict[tuple[int, float], list[str]] = {}
        for path, part in self._content.parts.items():
            groups.setdefault(part.group, []).append(path)
        names = (f"{self.name}_{i}" if i > 1 else self.name for i in range(1, len(groups) + 1))
        return dict(zip(names, groups.values(), strict=True))


@dataclasses.dataclass(frozen=True)
class PeftWeights:
    """A `plan.Weights`: an adapter of PEFT over the weights of its base."""

    adapter: Peft
    base: Weights

    @property
    def name(self) -> str:
        return f"{self.adapter.location} over {self.base.name}"

    def digest(self) -> str:
        """SHA-256 of all files, hexadecimal."""
        parts = [self.base.digest(), *map(sha256, self.adapter.files)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def read(self, wanted: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], str]:
        """As `plan.Weights`."""
        adapter, others = self.adapter, getattr(wanted, "others", ())
        values, problems, leaves = adapter.leaves(), [], {}
        names = {path.split("/")[0] for path in values}
        for path, abstract in wanted.items():
            if path.split("/")[0] not in names:
                continue
            array = values.get(path)
            if array is None:
                problems.append(f"{path}: not there; {_near(path, values)}")
            elif array.shape != tuple(abstract.shape):
                problems.append(f"{path}: file {[*array.shape]}, model {[*abstract.shape]}")
            else:
                try:
                    leaves[path] = convert(array, path, np.dtype(abstract.dtype))
                except Mismatch as mismatch:
                    problems.append(f"{path}: {mismatch}")
        if others is not None:
            problems += [
                f"{path}: the model has no such adapter; attach it with `{adapter.name}.attach` or "
                "`pretrained.peft(...).attach(model)`"
                for path in values
                if path not in wanted and path not in others
            ][:5]
        if problems:
            first = f"cannot load {adapter.location}:"
            raise ValueError("\n  ".join((first, *problems)))
        count = len(leaves)
        whole, unused = self._whole({p: x for p, x in wanted.items() if p not in leaves})
        leaves |= whole
        rest = {path: x for path, x in wanted.items() if path not in leaves}
        above = None if others is None else {*others, *leaves}
        base, report = self.base.read(Wanted(rest, above)) if rest else ({}, "")
        lines = [f"{adapter.location}: {count} arrays of {', '.join(sorted(names))}"]
        lines += [f"  instead of the base's ({len(whole)}): {', '.join(whole) or 'none'}"]
        lines += [f"  unused in the file ({len(unused)}): {', '.join(unused) or 'none'}"]
        return {**base, **leaves}, "\n".join([*lines, report])

    def save(self, path: Path, leaves: Mapping[str, np.ndarray]) -> None:
        """As `plan.Weights`, under the names of the base."""
        self.base.save(path, leaves)

    def _whole(self, wanted: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], list[str]]:
        """({path: array that takes the place of the base's}, names of those for no leaf)."""
        content = self.adapter._content
        if not content.others:
            return {}, []
        best = fit(content.scheme, self.adapter.head, Wanted(wanted, None), content.others)
        problems = [f"{p}: {x}" for p, x in best.problems.items() if p in best.entries]
        if problems:
            raise ValueError("\n  ".join((f"cannot load {self.adapter.location}:", *problems)))
        used = {best.entries[path].name for path in best.leaves}
        return best.leaves, [name for name in content.others if name not in used]


def _near(name: str, names: Iterable[str]) -> str:
    return f"closest: {', '.join(closest(name, names)) or 'none'}"


def _config(path: Path) -> dict[str, Any]:
    """The JSON values of a config.

    Raises:
        ValueError: it cannot be read, or says what is not LoRA or DoRA.
    """
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(_CONFIG_BYTES))
        kind, start = config.get("peft_type"), config.get("init_lora_weights", True)
        numbers = [float(config[key]) for key in ("r", "lora_alpha")]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"cannot read {path}: {shorten(error)}.") from error
    problems = []
    if kind != "LORA":
        problems.append(f"peft_type {shorten(json.dumps(kind))}, expected LORA")
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        problems.append(f"r and lora_alpha {numbers}, expected positive numbers")
    problems += [f"{key} {shorten(json.dumps(config[key]))}" for key in _OTHERS if config.get(key)]
    if isinstance(start, str) and start.startswith(_CHANGING):
        problems.append(
            f"init_lora_weights {shorten(start)}, which changed the base's kernels: save it as "
            "LoRA with `path_initial_model_for_weight_conversion`"
        )
    if problems:
        raise ValueError(f"cannot read {path}: what it says is not read: {'; '.join(problems)}.")
    return config


def _read(
    location: str,
    config: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    schemes: Sequence[Scheme],
) -> _Content:
    """The parts of an adapter, by the first scheme that has names for most of them."""
    modules: dict[str, dict[str, np.ndarray]] = {}
    others, tables, problems = {}, set(), []
    for key, array in arrays.items():
        if not key.startswith(PREFIX):
            problems.append(f"{shorten(key)}: does not start with {PREFIX}")
        elif match := _PART.fullmatch(key.removeprefix(PREFIX)):
            kind = {"A": "a", "B": "b"}.get(match[3], "magnitude")
            modules.setdefault(match[1], {})[kind] = array
            tables |= {match[1]} if match[2] else set()
        elif ".lora_" in key:
            problems.append(f"{shorten(key)}: is not read")
        else:
            others[key.removeprefix(PREFIX)] = array
    is_dora = bool(config.get("use_dora"))
    leaves = {"a", "b", "magnitude"} if is_dora else {"a", "b"}
    for module, parts in modules.items():
        if parts.keys() != leaves:
            problems.append(f"{shorten(module)}: has {sorted(parts)}, expected {sorted(leaves)}")
    scheme = max(schemes, key=lambda s: sum(bool(s.places(f"{m}.weight")) for m in modules))
    kernels: dict[str, _Part] = {}
    for module, parts in modules.items() if not problems else ():
        is_table = module in tables
        places = {
            path: entry
            for path, entry in scheme.places(f"{module}.weight").items()
            if path.endswith("/embedding") == is_table
        }
        if not places:
            problems.append(f"{shorten(module)}: has no place by the names of {scheme.name}")
        group = (len(parts["a"]), _scale(config, module, len(parts["a"])))
        for path, entry in places.items():
            try:
                kernels[path] = _Part(group, _leaves(entry, parts))
            except (ValueError, IndexError):  # NumPy's, about the number of axes
                shapes = {leaf: list(array.shape) for leaf, array in parts.items()}
                problems.append(f"{shorten(module)}: {shapes} are no low-rank matrices")
    if not modules:
        problems.append("it holds no LoRA")
    if problems:
        first = f"cannot read {location}:"
        raise ValueError("\n  ".join((first, *problems[:10])))
    return _Content(scheme, kernels, others, is_dora)


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    alpha = config["lora_alpha"]
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = value
            break
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _leaves(entry: Entry, parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A [rows, rank], B [rank, columns] and magnitudes of one kernel."""
    rank = len(parts["a"])
    up, magnitude = parts["b"], parts.get("magnitude")
    if entry.parts > 1:  # one matrix for queries, keys and values
        up = np.split(up, entry.parts)[entry.part]
        magnitude = None if magnitude is None else np.split(magnitude, entry.parts)[entry.part]
    if entry.layout.name:
        down, up = entry.layout.read(parts["a"]), entry.layout.read(up)
    else:  # of an embedding, whose table is not transposed
        down, up = parts["a"].T, up.T
    leaves = {"a": down.reshape(-1, rank), "b": up.reshape(rank, -1)}
    return leaves if magnitude is None else {**leaves, "magnitude": magnitude.reshape(-1)}
