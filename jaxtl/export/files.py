"""A trained model in a file: its weights as safetensors, its predictions as a StableHLO program."""

import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export

import jaxtl
from jaxtl.export.adapters import loading_adapters, write_adapters
from jaxtl.export.predictor import Predictor, restore
from jaxtl.export.rebuild import SavedRun, choose, read_run
from jaxtl.export.recipe import Action, Recipe, any_number
from jaxtl.export.request import check_request
from jaxtl.export.rows import in_words
from jaxtl.files import replacing, write_text
from jaxtl.models import Adapter, to_float
from jaxtl.paths import flatten
from jaxtl.plan import Model, Params, PyTree
from jaxtl.train.store.interface import describe

logger = logging.getLogger(__name__)

PLATFORMS = ("cpu", "cuda", "tpu")


def export_run(
    directory: Path,
    form: str,
    arm: str | None = None,
    stage: str | None = None,
    seed: int | None = None,
) -> str:
    """Write <directory>/export/<arm>.<form>, and beside it the same with .json, which describes it.

    Args:
        directory: <workdir>/<experiment>.
        form: `safetensors`, `stablehlo`, or `peft`: a folder with the adapters alone.
        arm, stage, seed: as `jaxtl.load` takes them.

    Returns:
        What was written and how to load it.

    Raises:
        ValueError: as `jaxtl.load`, the format is unknown or lacks its package, or the model has no
            program for any number of examples.
        NotWritten: a file cannot be.
    """
    check_request(directory, form)
    run = read_run(directory)
    predictor = restore(run, choose(run, arm, stage, seed))
    path = directory / "export" / f"{predictor.arm}.{form}"
    if form == "peft":
        notes = write_adapters(predictor, path)
    else:
        write = write_weights if form == "safetensors" else write_program
        with replacing(path) as partial:
            notes = write(predictor, partial)
    notes["preprocessing"] = write_preparations(predictor, form, path)
    about = {"format": form, **description(run, predictor, form), **notes}
    write_text(path.with_name(f"{path.name}.json"), json.dumps(about, indent=1) + "\n")
    files = path.iterdir() if path.is_dir() else [path]
    count = sum(file.stat().st_size for file in files)
    size = f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{math.ceil(count / 1e3)} kB"
    what = f"arm {predictor.arm}, stage {predictor.stages[-1].name}, seed {predictor.seed}"
    return f"{path} ({size}): {what}\n\n{usage(predictor, form, path)}"


class Entry(NamedTuple):
    """Where rows enter a file's model.

    Attributes:
        inputs: abstract, [1, ...].
        before: what is to be done to raw rows first.
        inside: what the file does to them itself.
    """

    inputs: PyTree
    before: tuple[Action, ...] = ()
    inside: tuple[Action, ...] = ()


def entry(predictor: Predictor, form: str) -> Entry:
    """A program does what JAX can trace; prepared inputs enter if no preparation is meant."""
    recipe = predictor.recipe() if predictor.like else Recipe(predictor.inputs)
    if form != "stablehlo":
        return Entry(predictor.inputs, recipe.actions)
    before, inside = recipe.split
    return Entry(before[-1].gives if before else recipe.raw, before, inside)


def write_preparations(predictor: Predictor, form: str, path: Path) -> dict[str, Any]:
    """Copy the files that preparations need to a model's file.

    Returns:
        {evaluation or domain: its "raw" rows, what is to be done "before" and what the file does
        "inside"}: of the one that is meant, or of all if that is not clear.
    """
    preparations, meant = {}, entry(predictor, form)
    for name in [predictor.like] if predictor.like else predictor.recipes:
        recipe, before = predictor.recipes[name], []
        for action in meant.before if predictor.like else recipe.actions:
            about = {key: value for key, value in action.about.items() if key != "position"}
            if action.file is not None:
                about["file"] = f"{path.name}.{action.file.name}"
                with replacing(path.with_name(about["file"])) as partial:
                    shutil.copyfile(action.file, partial)
            before.append(about)
        leaves = jax.tree.leaves(predictor.inputs)
        if form != "stablehlo" and any(leaf.dtype == np.uint8 for leaf in leaves):
            before.append({"kind": "to_float", "name": "uint8 / 255"})
        inside = [action.name for action in meant.inside]
        preparations[name] = {"raw": describe(recipe.raw), "before": before, "inside": inside}
    return preparations


def write_weights(predictor: Predictor, path: Path) -> dict[str, Any]:
    """Parameters and batch statistics, adapters merged; under published names if they have such."""
    leaves, weights = weights_of(predictor), predictor.stages[0].weights
    if not hasattr(weights, "save"):
        from safetensors.numpy import save

        path.write_bytes(save(leaves))
        return {"names": "jaxtl"}
    weights.save(path, leaves)
    return {"names": weights.name}


def weights_of(predictor: Predictor) -> dict[str, np.ndarray]:
    """{path: leaf} of what the model reads, adapters merged where they can be; no networks of
    the method's."""
    model, params = merged(predictor.model, predictor.params)
    read = jax.eval_shape(to_float, predictor.inputs)
    wanted = jax.eval_shape(model.init, jax.random.key(0), read)
    leaves = flatten(params) | flatten(predictor.state.statistics)
    return {  # safetensors writes what is not contiguous in another order
        path: np.asarray(leaves[path], order="C") for tree in wanted for path in flatten(tree)
    }


def merged(model: Model, params: Params) -> tuple[Model, Params]:
    """Without the adapters, from the outside on, up to one that cannot be merged."""
    while not model.adapters or _can_merge(model.adapters[-1]):
        inner, params = model.merge(params)
        if inner is model:
            break
        model = inner
    return model, params


def _can_merge(adapter: Adapter) -> bool:
    return adapter.merge is not None and adapter.task is None


def write_program(predictor: Predictor, path: Path) -> dict[str, Any]:
    """A serialized `jax.export` program: inputs of any number of examples -> {"logits": ...}."""
    exported = program(predictor)
    path.write_bytes(exported.serialize())
    return {"platforms": list(exported.platforms)}


def program(predictor: Predictor) -> export.Exported:
    """The program for all `PLATFORMS`, or for those that it can be lowered for.

    It takes raw rows, or as little prepared ones as JAX can go on from.

    Raises:
        ValueError: there is none.
    """
    where = entry(predictor, "stablehlo")

    def logits(inputs):
        for action in where.inside:
            inputs = action.trace(inputs)
        return {"logits": predictor.forward(predictor.params, predictor.state, inputs)["logits"]}

    def lower(*platforms: str) -> export.Exported:
        return export.export(jax.jit(logits), platforms=platforms)(any_number(where.inputs))

    try:
        return lower(*PLATFORMS)
    except Exception as error:  # whatever a layer or a lowering rule raises
        reason = str(error).strip().split("\n")[0]
        works = [platform for platform in PLATFORMS if _succeeds(lower, platform)]
        if not works:
            raise ValueError(
                f"the model of stage {predictor.stages[-1].name!r} has no program for any number "
                f"of examples: {reason}"
            ) from error
        logger.warning("the program is for %s only: %s", " and ".join(works), reason)
        return lower(*works)


def _succeeds(function: Callable, *args: Any) -> bool:
    try:
        function(*args)
    except Exception:  # as above
        return False
    return True


def description(run: SavedRun, predictor: Predictor, form: str) -> dict[str, Any]:
    """What a file holds, as JSON; the metric is that of the arm's end, else None."""
    arm, metric, stage = predictor.arm, None, predictor.stages[-1]
    if run.summary is not None and stage.name == run.experiment.arms[arm][-1].name:
        name = run.summary["primary"]["metric"]
        values = run.summary["arms"].get(arm, {"metrics": {}})["metrics"].get(name)
        if values is not None:
            seed = run.summary["seeds"].index(predictor.seed)
            metric = {"name": name, "value": values["per_seed"][seed], "mean": values["mean"]}
    heads = {
        name: {"size": head.size, "classes": list(predictor.class_names.get(name, ()))}
        for name, head in predictor.heads.items()
    }
    return {
        "experiment": run.file.stem,
        "arm": arm,
        "stage": stage.name,
        "seed": predictor.seed,
        "metric": metric,
        "inputs": describe(entry(predictor, form).inputs),
        "heads": heads,
        "jaxtl": jaxtl.__version__,
    }


def usage(predictor: Predictor, form: str, path: Path) -> str:
    """Python that loads the file."""
    inputs, before, _ = entry(predictor, form)
    note = f"# inputs: {in_words(inputs, 'n')}"
    if before:
        steps = ", ".join(action.name for action in before)
        note += f", raw rows after {steps}, as {path.name}.json says"
    if form == "peft":
        return f"{loading_adapters(path)}; {note[2:]}"
    if form == "safetensors":
        return (
            "from safetensors.numpy import load_file\n"
            f"weights = load_file({str(path)!r})\n"
            f"print({{name: leaf.shape for name, leaf in weights.items()}})  {note}"
        )
    return (
        "import jax\n"
        f"program = jax.export.deserialize(open({str(path)!r}, 'rb').read())\n"
        f"logits = program.call(inputs)['logits']  {note}"
    )
