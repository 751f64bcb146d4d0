"""How raw rows become what a model reads, without the data: followed on the host, or traced."""

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from jaxtl.data import Dataset, Table
from jaxtl.data.dataset import Step
from jaxtl.data.steps import text, traceable, transforms
from jaxtl.data.steps.one_hot import given, one_hot
from jaxtl.data.table import Call
from jaxtl.export.rebuild import Choice, SavedRun
from jaxtl.plan import PyTree
from jaxtl.train.store.interface import abstract_inputs, describe
from jaxtl.train.store.preprocessing import (
    FOLDER,
    IMAGE_KINDS,
    name_of_step,
    read_preprocessing,
    read_statistics,
)

logger = logging.getLogger(__name__)

IMAGE_FUNCTIONS = {name: function for function, name in IMAGE_KINDS.items()}
OF_LABELS = (transforms.relabel_classes, transforms.relabel, transforms.hide)
TRIED = 4  # random rows on which a traced function must give what it gives on the host


@dataclasses.dataclass(frozen=True)
class Action:
    """One step of a recipe.

    Attributes:
        about: its JSON values, as `train.preprocessing` wrote them.
        gives: the abstract inputs [1, ...] after it.
        step: what is done to a table.
        file: that `about` names.
        problem: why it cannot be applied to rows alone.
    """

    about: Mapping[str, Any]
    gives: PyTree
    step: Step
    file: Path | None = None
    problem: str | None = None

    @property
    def name(self) -> str:
        return self.about["name"]

    @property
    def is_own(self) -> bool:
        """Whether it is a function of the experiment's file."""
        return self.about["kind"] == "function"

    def apply(self, table: Table) -> Table:
        return self.step.function(table, *self.step.arguments)

    def trace(self, inputs: PyTree) -> PyTree:
        """The inputs after it, in a program.

        Raises:
            NotImplementedError: it is done on the host only.
        """
        function, arguments = self.step.function, self.step.arguments
        if function is _standardize:
            return jax.tree.map(traceable.scale, inputs, _like(inputs, *arguments))
        if function is not transforms.map_images:
            raise NotImplementedError(self.name)
        change, options = arguments
        change = traceable.IMAGES.get(change, change)
        return jax.tree.map(lambda x: change(x, *options) if x.ndim == 4 else x, inputs)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is done to the raw rows of one dataset.

    Attributes:
        raw: abstract rows [1, ...] as the dataset holds them; texts have the dtype object.
        ranges: [least, most] of each leaf of `raw` that holds float images, None of the others.
        actions: in order.
        columns: names of the inputs of a table, in order; none of other data.
    """

    raw: PyTree
    ranges: Sequence[Sequence[float] | None] = ()
    actions: tuple[Action, ...] = ()
    columns: tuple[str, ...] = ()

    @property
    def problems(self) -> list[str]:
        """Why rows alone cannot be prepared, a line for each step that cannot do it."""
        return [f"{a.name}: {a.problem}" for a in self.actions if a.problem is not None]

    def prepare(self, inputs: PyTree) -> PyTree:
        """Rows as a model reads them.

        Args:
            inputs: NumPy arrays [n, ...], n > 0, like `raw`.

        Raises:
            ValueError: a step does not take such rows.
        """
        table = Table(inputs, {})
        for action in self.actions:
            before, table = len(table), action.apply(table)
            if len(table) != before:
                raise ValueError(f"{action.name} makes {len(table)} rows of {before}")
        return table.inputs

    def equals(self, other: "Recipe") -> bool:
        """Whether it does the same to the same rows as another one."""

        def contents(recipe: Recipe) -> tuple:
            steps = [
                ({**action.about, "position": None}, action.step if action.is_own else None)
                for action in recipe.actions
            ]
            return describe(recipe.raw), recipe.columns, steps

        return contents(self) == contents(other)

    @functools.cached_property
    def split(self) -> tuple[tuple[Action, ...], tuple[Action, ...]]:
        """(the actions for the host, the last ones that JAX can trace)."""
        inside: tuple[Action, ...] = ()
        for i in reversed(range(len(self.actions))):
            action, given = self.actions[i], self.actions[i - 1].gives if i else self.raw
            if action.problem is not None or not _traces(action, given):
                break
            inside = (action, *inside)
        return self.actions[: len(self.actions) - len(inside)], inside


def preparations(run: SavedRun, choice: Choice) -> tuple[dict[str, Recipe], str | None]:
    """({evaluation or domain: recipe}, the one that is meant); see `Predictor.predict`."""
    stage, record = choice.stages[-1], read_preprocessing(run.directory)
    if record is None or stage.name not in record["stages"]:
        steps = [step for domain in stage.domains for step in domain.dataset.steps]
        if any(not step.selects and step.function not in OF_LABELS for step in steps):
            logger.warning(
                "%s was made before jaxtl wrote down how rows are prepared: give `predict` "
                "inputs that are prepared as those of stage %s were",
                *(run.directory, stage.name),
            )
        return {}, None
    trained = {h for past in choice.stages for domain in past.domains for h in domain.heads}
    records = {
        name: (record["evaluations"][name], evaluation.dataset)
        for name, evaluation in run.experiment.evals.items()
        if evaluation.head in trained & stage.model.heads.keys() and name in record["evaluations"]
    }
    domains = zip(record["stages"][stage.name], stage.domains, strict=False)
    for i, (prepared, domain) in enumerate(domains):
        records[f"domain {i}"] = prepared, domain.dataset
    folder = run.directory / FOLDER
    recipes = {name: read_recipe(*pair, folder) for name, pair in records.items()}
    main = run.experiment.primary.evaluation
    if main in recipes:
        return recipes, main
    first, *others = recipes.values()
    return recipes, next(iter(recipes)) if all(map(first.equals, others)) else None


def read_recipe(record: Mapping[str, Any], dataset: Dataset, folder: Path) -> Recipe:
    """The recipe that `train.preprocessing.preparation` wrote down.

    Args:
        dataset: the one that was described, built again: it has the functions of one's own.
        folder: of the files that are named.
    """
    own_steps = [step for step in dataset.steps if not step.selects]
    actions = []
    for about in record["steps"]:
        file = folder / about["file"] if "file" in about else None
        step, problem = _step(about, file, own_steps), about.get("problem")
        if step is None:
            step = Step(lambda table: table)
            problem = "the experiment's file does not have it in this place any more"
        actions.append(Action(about, abstract_inputs(about["gives"]), step, file, problem))
    columns = tuple(record.get("columns", ()))  # runs of earlier versions have none
    return Recipe(abstract_inputs(record["raw"]), record["ranges"], tuple(actions), columns)


def _step(about: Mapping[str, Any], file: Path | None, own_steps: Sequence[Step]) -> Step | None:
    """What was written down, as a step; None for a function of one's own that is gone."""
    match about["kind"]:
        case "standardize":
            return Step(_standardize, (read_statistics(file),))
        case "one_hot":
            spaces = tuple((name, names and tuple(names)) for name, names in about["columns"])
            return Step(one_hot, (Call(given, (spaces,)),))
        case "tokenize":
            return Step(text.tokenize, (str(file), about["length"], about["lowercase"]))
        case "function":
            step = next(iter(own_steps[about["position"] :]), None)
            return step if step is not None and about["name"] == name_of_step(step) else None
        case kind:
            arguments = tuple(tuple(a) if isinstance(a, list) else a for a in about["arguments"])
            return Step(transforms.map_images, (IMAGE_FUNCTIONS[kind], arguments))


def _standardize(table: Table, moments: Mapping[int, transforms.Moments]) -> Table:
    """By statistics of the leaves, whose numbers are given.

    Raises:
        ValueError: a leaf has another shape than its statistics.
    """
    for i, leaf in enumerate(jax.tree.leaves(table.inputs)):
        if i in moments and leaf.shape[1:] != moments[i].mean.shape:
            raise ValueError(
                f"it was standardized by statistics of {list(moments[i].mean.shape)} for each "
                f"row, got {list(leaf.shape[1:])}"
            )
    return transforms.scale(table, _like(table.inputs, moments))


def _like(inputs: PyTree, by_leaf: Mapping[int, Any]) -> PyTree:
    """{number of a leaf: value} as a tree like the inputs, None where there is none."""
    leaves, tree = jax.tree.flatten(inputs)
    return jax.tree.unflatten(tree, [by_leaf.get(i) for i in range(len(leaves))])


def _traces(action: Action, given: PyTree) -> bool:
    """Whether JAX can trace an action for any number of rows, and computes the same on some.

    What is float64 is so because float32 cannot tell its values apart.
    """
    leaves = jax.tree.leaves(given)
    if any(leaf.dtype in (object, np.float64) for leaf in leaves):
        return False
    rng = np.random.default_rng(0)

    def rows(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        shape = (TRIED, *leaf.shape[1:])
        if np.issubdtype(leaf.dtype, np.integer):
            return rng.integers(0, 256, shape).astype(leaf.dtype)
        return rng.random(shape).astype(leaf.dtype)

    try:
        jax.eval_shape(action.trace, any_number(given))
        inputs = jax.tree.map(rows, given)
        on_host, traced = action.apply(Table(inputs, {})).inputs, jax.jit(action.trace)(inputs)
    except Exception:  # it cannot be traced, or whatever a function of one's own makes of a tracer
        return False
    return jax.tree.structure(on_host) == jax.tree.structure(traced) and all(
        map(_close, jax.tree.leaves(on_host), jax.tree.leaves(traced))
    )


def _close(on_host: np.ndarray, traced: jax.Array) -> bool:
    """But for rounding: of a float, or of some pixels of uint8 that lie halfway."""
    if on_host.shape != traced.shape or on_host.dtype.kind != traced.dtype.kind:
        return False
    if on_host.dtype == np.uint8:
        apart = np.abs(on_host.astype(int) - np.asarray(traced))
        return traced.dtype == np.uint8 and apart.max(initial=0) <= 1 and apart.mean() < 0.05
    return np.allclose(on_host, traced, rtol=1e-4, atol=1e-5)


def any_number(inputs: PyTree) -> PyTree:
    """Abstract inputs [1, ...] for any number n of rows, in dtypes that JAX has."""
    (n,) = export.symbolic_shape("n")

    def spec(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((n, *leaf.shape[1:]), jax.dtypes.canonicalize_dtype(leaf.dtype))

    return jax.tree.map(spec, inputs)
