"""Adapters of a model as the files of PEFT."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtl.files import replacing, write_text
from jaxtl.models.adapter import Factors
from jaxtl.paths import flatten
from jaxtl.plan import Model, Params, Weights
from jaxtl.plan.reading import Wanted
from jaxtl.pretrained.adapters.peft import PREFIX
from jaxtl.pretrained.names.scheme import Entry, Scheme


def save_peft(
    folder: str | Path,
    model: Model,
    params: Params,
    schemes: Scheme | Sequence[Scheme],
    *,
    head: str | None = None,
    base: Weights | None = None,
) -> str:
    """Write `adapter_model.safetensors` and `adapter_config.json`, which PEFT reads.

    PiSSA, AdaLoRA and VeRA become LoRA of the same product, DoRA stays DoRA. Several adapters on
    one kernel become one of the sum of their ranks.

    Args:
        folder: is made; the two files in it are replaced.
        model: with adapters that change kernels by a product of two matrices.
        params: of one seed; arrays.
        schemes: the base's names, such as `BERT`; the first that has all kernels, and each in a
            matrix of its own, is taken.
        head: the model's head that becomes the classifier of PEFT's base, which is then of
            `AutoModelForSequenceClassification` or the like, whose names have a prefix; None for
            the bare `AutoModel`.
        base: weights that the model started from: what else has changed since is written whole.
            Without them only the adapters and the head are.

    Returns:
        What was written, several lines.

    Raises:
        ValueError: the model has no such adapter, the scheme no name for a kernel or for what has
            changed, or that stands in no module.
        NotWritten: a file cannot be.
    """
    from safetensors.numpy import save

    folder, flat = Path(folder), flatten(params)
    kernels = _factors(model, params)
    schemes = (schemes,) if isinstance(schemes, Scheme) else tuple(schemes)
    scheme = _scheme(schemes, kernels, head is not None)
    by_module: dict[str, list[tuple[Entry, str, Factors]]] = {}
    for path, several in kernels.items():
        entry = scheme.entry(path)
        for factors in several:
            module = entry.name.removesuffix(".weight")
            by_module.setdefault(module, []).append((entry, path, factors))
    arrays: dict[str, np.ndarray] = {}
    parts = {module: _joined(several) for module, several in by_module.items()}
    for module, part in parts.items():
        entry, path, _ = by_module[module][0]
        for kind, array in _arrays(entry, path, flat[path].shape, part).items():
            arrays[f"{PREFIX}{module}.{kind}"] = array
    whole = _whole(scheme, flat, head, base, set(kernels))
    arrays |= {f"{PREFIX}{name}": array for name, array in whole.items()}
    config = _config(parts, whole, head, base)
    with replacing(folder / "adapter_model.safetensors") as partial:
        contiguous = {name: np.array(array, order="C") for name, array in arrays.items()}
        partial.write_bytes(save(contiguous, {"format": "pt"}))
    write_text(folder / "adapter_config.json", json.dumps(config, indent=1) + "\n")
    lines = [f"{folder}: {len(parts)} kernels by the names of {scheme.name}"]
    lines.append(f"  whole ({len(whole)}): {', '.join(whole) or 'none'}")
    return "\n".join(lines)


class _Joined(NamedTuple):
    """The product for one matrix of the file; `down` is [rows, rank], `up` [rank, columns]."""

    down: np.ndarray
    up: np.ndarray
    scale: float
    magnitude: np.ndarray | None


def _factors(model: Model, params: Params) -> dict[str, list[Factors]]:
    """{path of a kernel: what the adapters make of it}."""
    if not model.adapters:
        raise ValueError("the model has no adapter; attach one, such as adapters.lora.")
    kernels: dict[str, list[Factors]] = {}
    for adapter in model.adapters:
        if adapter.task is not None:
            raise ValueError(
                f"adapter {adapter.name!r} belongs to task {adapter.task!r} alone, and PEFT's base "
                "is one network; write one task: models.of_task(model, params, task)."
            )
        if adapter.factors is None:
            raise ValueError(
                f"adapter {adapter.name!r} has no form of LoRA or DoRA, as it adds no product of "
                "two matrices to kernels."
            )
        for path, factors in adapter.factors(model, params).items():
            kernels.setdefault(path, []).append(jax.tree.map(np.asarray, factors))
    magnitudes = [factors.magnitude is not None for each in kernels.values() for factors in each]
    if any(magnitudes) and (len(model.adapters) > 1 or not all(magnitudes)):
        names = ", ".join(adapter.name for adapter in model.adapters)
        raise ValueError(f"DoRA beside other adapters ({names}) is no form of PEFT; merge those.")
    return kernels


def _scheme(schemes: Sequence[Scheme], paths: Iterable[str], has_classifier: bool) -> Scheme:
    """The first scheme of the first project that names all kernels, with its prefix or without."""
    paths = list(paths)
    named = [s for s in schemes if len(s.entries(paths)) == len(paths) and _has_places(s, paths[0])]
    if not named:
        missing = [p for p in paths if not any(s.entry(p) for s in schemes)] or paths
        raise ValueError(
            f"no scheme for adapters of PEFT has names for {', '.join(missing[:5])}; known are "
            "those of pretrained.BERT and of PyTorch's in pretrained.VIT."
        )
    # One matrix a kernel, if it can.
    named.sort(key=lambda scheme: max(scheme.entry(path).parts for path in paths))
    project = named[0].name.partition(" with the prefix ")[0]
    same = [s for s in named if s.name.partition(" with the prefix ")[0] == project]
    return next((s for s in same if ("prefix" in s.name) == has_classifier), same[0])


def _has_places(scheme: Scheme, path: str) -> bool:
    return path in scheme.places(scheme.entry(path).name)


def _joined(several: list[tuple[Entry, str, Factors]]) -> _Joined:
    """One product of the sum of the ranks, block by block where the file's matrix has parts."""
    scale = several[0][2].scale
    if len(several) == 1 and several[0][0].parts == 1:
        return _Joined(*several[0][2])
    rank = sum(factors.down.shape[1] for _, _, factors in several)
    width, parts = several[0][2].up.shape[1], several[0][0].parts
    up, start = np.zeros((rank, parts * width), np.float32), 0
    for entry, path, factors in several:
        if factors.magnitude is not None:
            raise ValueError(f"{path}: the file has queries, keys and values in one; DoRA has not.")
        end = start + len(factors.up)
        columns = slice(entry.part * width, (entry.part + 1) * width)
        up[start:end, columns] = factors.up * (factors.scale / scale)
        start = end
    down = np.concatenate([factors.down for _, _, factors in several], axis=1)
    return _Joined(down, up, scale, None)


def _arrays(
    entry: Entry, path: str, shape: tuple[int, ...], part: _Joined
) -> dict[str, np.ndarray]:
    """{what PEFT calls it below the module: array} of one product."""
    rank, write = part.down.shape[1], entry.layout.write
    if path.endswith("/embedding"):
        return {"lora_embedding_A": part.down.T, "lora_embedding_B": part.up.T}
    ones = (1,) * (len(shape) - 2)
    arrays = {
        "lora_A.weight": write(part.down.reshape(*shape[:-1], rank)),
        "lora_B.weight": write(part.up.reshape(*ones, rank, -1)),
    }
    if part.magnitude is not None:
        # One number an output, in the shape of the kernel's norms where it is a convolution.
        sides = (1, -1, *ones) if ones else (-1,)
        arrays["lora_magnitude_vector"] = part.magnitude.reshape(sides)
    return arrays


def _whole(
    scheme: Scheme,
    flat: Mapping[str, Any],
    head: str | None,
    base: Weights | None,
    adapted: set[str],
) -> dict[str, np.ndarray]:
    """{name: array} of the head and of all modules that have changed since the base."""
    heads = {path for path in flat if path.startswith(f"heads/{head}/")}
    if head is not None and not heads:
        raise ValueError(f"the parameters have no head {head!r}.")
    leaves = {path: leaf for path, leaf in flat.items() if path.startswith("backbone/")}
    changed: set[str] = set()
    if base is not None:
        wanted = {p: jax.ShapeDtypeStruct(x.shape, x.dtype) for p, x in leaves.items()}
        before, _ = base.read(Wanted(wanted, None))
        changed = {p for p, x in leaves.items() if not np.array_equal(before[p], np.asarray(x))}
    modules = {path.rpartition("/")[0] for path in changed}
    if both := sorted(modules & {path.rpartition("/")[0] for path in adapted}):
        raise ValueError(
            f"kernels or biases trained beside their adapters are no form of PEFT: "
            f"{', '.join(both[:5])}; export the merged weights."
        )
    whole = heads | {path for path in leaves if path.rpartition("/")[0] in modules}
    entries = scheme.entries(whole)
    if problems := sorted(
        p for p in whole if p not in entries or entries[p].parts > 1 or "." not in entries[p].name
    ):
        raise ValueError(
            f"what has changed stands in no module by the names of {scheme.name}: "
            f"{', '.join(problems[:5])}; export the merged weights."
        )
    return {entries[p].name: entries[p].layout.write(np.asarray(flat[p])) for p in sorted(whole)}


def _config(
    parts: Mapping[str, _Joined],
    whole: Mapping[str, np.ndarray],
    head: str | None,
    base: Weights | None,
) -> dict[str, Any]:
    """What `peft.LoraConfig` reads."""
    ranks = {module: part.down.shape[1] for module, part in parts.items()}
    alphas = {module: float(part.scale) * ranks[module] for module, part in parts.items()}
    rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    escaped = {module: module.replace(".", r"\.") for module in parts}
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if head is not None and _is_text(parts) else None,
        "base_model_name_or_path": None if base is None else base.name,
        "r": rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "rank_pattern": {escaped[m]: r for m, r in ranks.items() if r != rank},
        "alpha_pattern": {
            escaped[m]: a for m, a in alphas.items() if not math.isclose(a, alpha, rel_tol=1e-9)
        },
        "target_modules": sorted(parts),
        "modules_to_save": sorted({name.rpartition(".")[0] for name in whole}) or None,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": any(part.magnitude is not None for part in parts.values()),
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _is_text(modules: Iterable[str]) -> bool:
    return any(module.startswith(("bert.", "distilbert.")) for module in modules)
