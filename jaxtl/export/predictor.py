"""A trained model of a run as a function of its inputs, in one call."""

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.export.columns import in_columns
from jaxtl.export.rebuild import Choice, SavedRun, choose, read_run
from jaxtl.export.recipe import Recipe, preparations
from jaxtl.export.rows import check_finite, check_indices, in_words, read_rows
from jaxtl.files import user_path
from jaxtl.fingerprint import of_program
from jaxtl.models import forward, index_bounds, outputs, to_float
from jaxtl.paths import flatten, nest, unknown
from jaxtl.plan import Head, Model, Params, PyTree, Stage, StageShape, State
from jaxtl.train.resolve.stage import initialise, load_problems
from jaxtl.train.store.blocks import restore_chain
from jaxtl.train.store.identity import differences, versions
from jaxtl.train.store.interface import abstract_inputs

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained model.

    Attributes:
        model: of the loaded stage.
        params, state: of one seed.
        class_names: {head: names}, of the heads whose names the arm's training data told.
        inputs: abstract inputs [1, ...] of the model, as its prepared training data hold them.
        arm: its name.
        stages: the arm's, up to the loaded one.
        seed: of the parameters.
        recipes: {evaluation, or `domain 0` and so on of the stage: how its raw rows are prepared};
            empty if the run was made before that was written down.
        like: the recipe of `predict`, None if no one is meant.
    """

    model: Model
    params: Params
    state: State
    class_names: Mapping[str, tuple[str, ...]]
    inputs: PyTree
    arm: str
    stages: tuple[Stage, ...]
    seed: int
    recipes: Mapping[str, Recipe] = dataclasses.field(default_factory=dict)
    like: str | None = None

    def __repr__(self) -> str:
        raw = self.recipes[self.like].raw if self.like else self.inputs
        outputs = ", ".join(f"{name}[n, {head.size}]" for name, head in self.heads.items())
        where = f"arm {self.arm!r}, stage {self._stage.name!r}, seed {self.seed}"
        return f"Predictor({where}: {in_words(raw, 'n')} -> {outputs})"

    @property
    def heads(self) -> Mapping[str, Head]:
        return self.model.heads

    @property
    def _stage(self) -> Stage:
        return self.stages[-1]

    def predict(self, inputs: Any, *, like: str | None = None, raw: bool = True) -> dict[str, Any]:
        """The model's outputs as it is evaluated: by the method's own `predict` if it has one.

        Raw rows are prepared as the data of an evaluation are: by the statistics, sizes and
        tokenizers of the run, and by functions of the experiment's file. Compiled once for each
        number of rows; no rows give no answers.

        Args:
            inputs: rows [n, ...] as the raw dataset holds them: arrays or lists of numbers, texts.
                Images of uint8 data may be any integers of 0 to 255, or floats in [0, 1]. Rows of a
                table may be a DataFrame of pandas or polars, {column: [n]} or a list of dicts, with
                other columns besides, or have the table's inputs in its order.
            like: evaluation, or `domain 0`, `domain 1`, ... of the stage, whose preparation is
                meant where they differ. By default that of the primary metric's evaluation if the
                stage's arm has trained its head, else the one that all of them share.
            raw: False for rows that are prepared already, as the model reads them.

        Returns:
            {"features": [n, features], "logits": {head: [n, size]}}, float32 NumPy arrays.

        Raises:
            ValueError: the model does not read such rows, values are not finite or out of range
                (with their number), the preparation cannot be done for rows alone, or outputs are
                not finite.
        """
        recipe = self.recipe(like) if raw else Recipe(self.inputs)
        if recipe.problems:
            others = [name for name, each in self.recipes.items() if not each.problems]
            hint = f", or as those of {', '.join(others)} are: like={others[0]!r}" if others else ""
            raise ValueError(
                f"stage {self._stage.name!r}: raw rows cannot be prepared by\n  "
                + "\n  ".join(recipe.problems)
                + f"\nGive rows that are prepared: predict(rows, raw=False){hint}."
            )
        try:
            named = in_columns(inputs, recipe.columns, recipe.raw)
            rows = read_rows(named, recipe.raw, recipe.ranges, exact=bool(recipe.actions))
            if not len(jax.tree.leaves(rows)[0]):
                return self._outputs(
                    jax.tree.map(lambda x: np.zeros((0, *x.shape[1:]), x.dtype), self.inputs)
                )
            if not any(action.is_own for action in recipe.actions):
                check_finite(rows)  # a function of one's own may fill in what is missing
            rows = recipe.prepare(rows)
            self._check(rows)
        except ValueError as error:
            hint = "; rows that are prepared go with raw=False" if recipe.actions else ""
            raise ValueError(
                f"the model of stage {self._stage.name!r} does not read these rows: {error}; it "
                f"was trained on {in_words(recipe.raw, 'n')}{hint}"
            ) from error
        output = self._outputs(rows)
        logits = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(output["logits"])]
        finite = np.isfinite(np.concatenate(logits, axis=1)).all(1)
        if not finite.all():
            raise ValueError(
                f"the outputs of stage {self._stage.name!r}, seed {self.seed}, are not finite for "
                f"{np.sum(~finite)} of {len(finite)} rows"
            )
        return output

    def recipe(self, like: str | None = None) -> Recipe:
        """How raw rows are prepared; see `predict`.

        Raises:
            ValueError: there is none of that name, none is meant, or it cannot be followed.
        """
        if not self.recipes and like is None:
            return Recipe(self.inputs)
        like = like or self.like
        if like is None:
            example = f"predict(rows, like={next(iter(self.recipes))!r})"
            raise ValueError(
                f"the data of stage {self._stage.name!r} are prepared in several ways; name one, "
                f"as in {example}. Known: {', '.join(self.recipes)}"
            )
        if like not in self.recipes:
            raise ValueError(unknown("evaluation or domain", like, self.recipes))
        return self.recipes[like]

    @property
    def forward(self) -> Callable[[Params, State, PyTree], dict[str, Any]]:
        """The pure function (params, state, prepared inputs) -> outputs that `predict` compiles."""
        return forward(self.model, self._stage.method.predict)

    def _outputs(self, rows: PyTree) -> dict[str, Any]:
        """The model's outputs for prepared rows [n, ...], in one call."""
        size = max(1, len(jax.tree.leaves(rows)[0]))
        predict = self._stage.method.predict
        return outputs(self.model, self.params, self.state, rows, predict=predict, batch_size=size)

    @functools.cached_property
    def _bounds(self) -> dict[str, int]:
        """{key path of an input: entries of the table that it is looked up in}."""
        return index_bounds(self.forward, self.params, self.state, self.inputs)

    def _check(self, rows: PyTree) -> None:
        """Raises ValueError for prepared rows that the model does not read, or that are no data."""
        if not self._fits(rows):
            raise ValueError(
                f"they are {in_words(rows)} for the model, which reads {in_words(self.inputs, 'n')}"
            )
        check_finite(rows, "once prepared, ")
        check_indices(rows, self._bounds)

    def _fits(self, inputs: PyTree) -> bool:
        """Whether the model reads such inputs, which may have another size where it allows that."""
        if jax.tree.structure(inputs) != jax.tree.structure(self.inputs):
            return False
        pairs = list(zip(jax.tree.leaves(inputs), jax.tree.leaves(self.inputs), strict=True))
        if any(a.ndim != b.ndim or _is_whole(a) != _is_whole(b) for a, b in pairs):
            return False
        if all(a.shape[1:] == b.shape[1:] for a, b in pairs):
            return True
        try:
            jax.eval_shape(self.forward, self.params, self.state, inputs)
        except Exception:  # whatever a layer makes of inputs that do not fit
            return False
        return True


def _is_whole(leaf: Any) -> bool:
    """Whether a leaf holds integers that `to_float` leaves alone."""
    return np.issubdtype(leaf.dtype, np.integer) and leaf.dtype != np.uint8


def load(
    run_dir: str | os.PathLike,
    arm: str | None = None,
    stage: str | None = None,
    seed: int | None = None,
) -> Predictor:
    """A model that a run trained, without the data it was trained on.

    The experiment is built again from its file, where the run was launched or in the current
    directory, and the run's config. If that file has changed since, the log warns.

    Args:
        run_dir: <workdir>/<experiment>.
        arm: None for the one with the best mean of the primary metric.
        stage: one of the arm's (of any arm's, if none is named); None for its last.
        seed: one of the run's; None for the first that did not fail.

    Raises:
        ValueError: no run, arm, stage or seed of that name (with the closest), the stage is not
            finished, or its parameters do not fit the model (all that do not are listed).
    """
    run = read_run(Path(user_path(run_dir)))
    return restore(run, choose(run, arm, stage, seed))


def restore(run: SavedRun, choice: Choice) -> Predictor:
    """The model that was chosen, with its parameters."""
    stage = choice.stages[-1]
    record = run.record(stage.name, choice.seed)
    inputs = abstract_inputs(record["inputs"])
    read = jax.eval_shape(to_float, inputs)
    shape = StageShape(**record["shape"], inputs=read)
    trees = jax.eval_shape(lambda: initialise(stage, read, shape, 0))
    method_state = None
    if stage.method.state is not None:
        method_state = jax.eval_shape(lambda *t: stage.method.state(stage.model, *t, shape), *trees)
    where = f"stage {stage.name!r} of {run.directory}"
    wanted = flatten(trees[0]) | flatten(trees[1])
    try:
        leaves, memory = restore_chain(
            run.directory, choice.stages, [choice.seed], wanted, method_state
        )
    except ValueError as error:
        raise ValueError(f"{where} {error}") from error
    leaves = {path: leaf[0] for path, leaf in leaves.items()}
    problems = load_problems(wanted, leaves, set(), remedies=False)
    problems += [f"{path}: there only" for path in sorted(leaves.keys() - wanted.keys())]
    if problems:
        raise ValueError(f"{where} does not fit this model:\n  " + "\n  ".join(problems))
    state = State(trees[1], method_state)
    source = run.file or "the experiment that was given"
    check_outputs(stage, record, trees[0], state, read, f"{where}: {source}")
    params, statistics = (
        nest({path: jnp.asarray(leaves[path]) for path in flatten(tree)}) for tree in trees
    )
    state = State(statistics, jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), memory))
    classes = {}
    for past in choice.stages:
        classes |= (run.record(past.name, choice.seed) or {"classes": {}})["classes"]
    names = {head: tuple(classes[head]) for head in stage.model.heads if head in classes}
    recipes = preparations(run, choice)
    return Predictor(stage.model, params, state, names, inputs, *choice, *recipes)


def check_outputs(
    stage: Stage,
    record: Mapping[str, Any],
    params: PyTree,
    state: State,
    inputs: PyTree,
    where: str,
) -> None:
    """Check that the model of a stage computes what it computed when it was trained.

    Nothing else of the experiment matters here. Programs of other versions of the libraries cannot
    be compared; there the log says so if the file has changed.

    Args:
        record: stage.json.
        params, state, inputs: abstract, of one seed and one example.
        where: begins the message; ends with the experiment's file.

    Raises:
        ValueError: it computes something else.
    """
    if record["made_with"]["versions"] != versions():
        logger.warning(
            "stage %s was trained with other versions (%s): that its model still computes the same "
            "was not checked",
            stage.name,
            "; ".join(differences(record["made_with"]["versions"], versions())),
        )
        return
    now = of_program(forward(stage.model, stage.method.predict), params, state, inputs)
    if now.digest != record["outputs"]:
        raise ValueError(
            f"{where} has changed since: its model computes something else than the one that was "
            "trained"
        )
