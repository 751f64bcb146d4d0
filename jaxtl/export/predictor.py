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

from jaxtl.data import to_float
from jaxtl.export.rebuild import Choice, Left, choose, read_run
from jaxtl.paths import flatten, nest
from jaxtl.plan import Head, Model, Params, PyTree, Stage, State
from jaxtl.train.identity import file_digest
from jaxtl.train.interface import abstract_inputs
from jaxtl.train.restore import restore_chain
from jaxtl.train.setup import METHOD_STATE, initialise, load_problems

logger = logging.getLogger(__name__)

SHOWN_LEAVES = 5


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained model.

    Attributes:
        model: of the loaded stage.
        params, state: of one seed; the method's own state, if it has one, is `state["method"]`.
        class_names: {head: names}, of the heads whose names the arm's training data told.
        inputs: abstract inputs [1, ...], as the dataset holds them.
        arm: its name.
        stages: the arm's, up to the loaded one.
        seed: of the parameters.
    """

    model: Model
    params: Params
    state: State
    class_names: Mapping[str, tuple[str, ...]]
    inputs: PyTree
    arm: str
    stages: tuple[Stage, ...]
    seed: int

    @property
    def heads(self) -> Mapping[str, Head]:
        return self.model.heads

    def predict(self, inputs: PyTree) -> dict[str, Any]:
        """The model's outputs as it is evaluated: by the method's own `predict` if it has one.

        Compiled once for each batch size.

        Args:
            inputs: leaves [n, ...] as the dataset holds them: uint8 images or floats.

        Returns:
            {"features": [n, features], "logits": {head: [n, size]}}, float32.

        Raises:
            ValueError: the model does not read such inputs.
        """
        inputs = jax.tree.map(lambda x: x if isinstance(x, jax.Array) else np.asarray(x), inputs)
        if not self._fits(inputs):
            raise ValueError(
                f"the model of stage {self.stages[-1].name!r} does not read {shown(inputs)}; it "
                f"was trained on {shown(self.inputs, 'n')}"
            )
        return self._compiled(self.params, self.state, inputs)

    @property
    def forward(self) -> Callable[[Params, State, PyTree], dict[str, Any]]:
        """The pure function (params, state, inputs) -> outputs that `predict` compiles."""
        predict = self.stages[-1].method.predict

        def forward(params: Params, state: State, inputs: PyTree) -> dict[str, Any]:
            if predict is not None:
                return predict(self.model, params, state, to_float(inputs))
            return self.model.apply(params, state, to_float(inputs))[0]

        return forward

    @functools.cached_property
    def _compiled(self) -> Callable:
        return jax.jit(self.forward)

    def _fits(self, inputs: PyTree) -> bool:
        """Whether the model reads such inputs, which may have another size where it allows that."""
        given, wanted = _by_path(inputs), _by_path(self.inputs)
        if given.keys() != wanted.keys():
            return False
        for path, leaf in given.items():
            if leaf.ndim != wanted[path].ndim or _is_whole(leaf) != _is_whole(wanted[path]):
                return False
        if all(leaf.shape[1:] == wanted[path].shape[1:] for path, leaf in given.items()):
            return True
        try:
            jax.eval_shape(self.forward, self.params, self.state, inputs)
        except Exception:  # whatever a layer makes of inputs that do not fit
            return False
        return True


def _is_whole(leaf: Any) -> bool:
    """Whether a leaf holds integers that `to_float` leaves alone."""
    return jnp.issubdtype(leaf.dtype, jnp.integer) and leaf.dtype != jnp.uint8


def _by_path(inputs: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(inputs)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def shown(inputs: PyTree, n: str = "") -> str:
    """`uint8[32, 8, 8, 1]`, with the keys of a pytree before it.

    Args:
        n: in place of the first axis.
    """
    parts = []
    for path, leaf in _by_path(inputs).items():
        shape = [n, *leaf.shape[1:]] if n else leaf.shape
        parts.append(f"{path} {leaf.dtype}[{', '.join(map(str, shape))}]".strip())
    return ", ".join([*parts[:SHOWN_LEAVES], *(["..."] if parts[SHOWN_LEAVES:] else [])])


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
    left = read_run(Path(run_dir))
    return restored(left, choose(left, arm, stage, seed))


def restored(left: Left, choice: Choice) -> Predictor:
    """The model that was chosen, with its parameters."""
    stage, record = choice.stages[-1], left.records[choice.stages[-1].name]
    if record["identity"]["experiment_file"] != file_digest(left.file):
        logger.warning("%s has changed since stage %s was trained", left.file, stage.name)
    if "inputs" not in record:
        raise ValueError(f"stage {stage.name!r} of {left.directory} is from an older jaxtl")
    inputs = abstract_inputs(record["inputs"])
    read = jax.eval_shape(to_float, inputs)
    here = jax.eval_shape(lambda: initialise(stage, read, 0))
    method_state = None
    if stage.method.state is not None:
        method_state = jax.eval_shape(functools.partial(stage.method.state, stage.model), *here)
    where = f"stage {stage.name!r} of {left.directory}"
    wanted = flatten(here[0]) | flatten(here[1])
    try:
        leaves, memory = restore_chain(
            left.directory, choice.stages, [choice.seed], wanted, method_state
        )
    except ValueError as error:
        raise ValueError(f"{where} {error}") from error
    leaves = {path: leaf[0] for path, leaf in leaves.items()}
    if problems := _misfits(wanted, leaves):
        raise ValueError(f"{where} does not fit this model:\n  " + "\n  ".join(problems))
    params, state = (
        nest({path: jnp.asarray(leaves[path]) for path in flatten(tree)}) for tree in here
    )
    if memory is not None:
        state = {**state, METHOD_STATE: jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), memory)}
    classes = {}
    for past in choice.stages:
        classes |= left.records.get(past.name, {"classes": {}})["classes"]
    names = {head: tuple(classes[head]) for head in stage.model.heads if head in classes}
    arguments = (params, state, names, inputs, choice.arm, choice.stages, choice.seed)
    return Predictor(stage.model, *arguments)


def _misfits(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """One line for each leaf that is in one place only, or of another shape."""
    lines = load_problems(wanted, found, set(), remedies=False)
    return lines + [f"{path}: there only" for path in sorted(found.keys() - wanted.keys())]
