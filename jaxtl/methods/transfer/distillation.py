"""A teacher's outputs beside the labels: knowledge distillation of logits and of features.

The teacher is a model with published weights, or the student as it was at the start of the stage.
It is kept in the method's state, a copy for each seed, and computes its outputs on the student's
own batches (their augmentation included) as in evaluation. It has no gradient.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from jaxtl import paths
from jaxtl.losses import hint, softened_divergence, supervised
from jaxtl.models import apply_flat
from jaxtl.plan import (
    Method,
    Model,
    Module,
    Params,
    PyTree,
    StageShape,
    State,
    Statistics,
    Update,
    Weights,
)

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A model with published weights, which reads the same inputs as the student.

    Attributes:
        model: its model; parameters and batch statistics are all read.
        weights: where they come from.
        inputs: pytree of `jax.ShapeDtypeStruct` [1, ...], the inputs of one example.
    """

    model: Model
    weights: Weights
    inputs: PyTree


def distill(
    tx: optax.GradientTransformation,
    *,
    heads: Sequence[str] | Mapping[str, str],
    teacher: Teacher | None = None,
    weight: float = 1.0,
    temperature: float = 2.0,
    trainable: Sequence[str] = (".*",),
) -> Method:
    """The supervised objective + weight * T^2 KL(teacher || student), both softened by T.

    The divergence is the weighted mean over all examples of the batch, unlabelled ones too, and
    the sum over the heads. The paper's weights are `weight` and the labelled domains' own.

    Args:
        tx: optax transformation.
        heads: heads of classes to distil, or {the student's: the teacher's}. A head that no domain
            of the stage names stays as it is, like everywhere.
        teacher: None for the student at the start of the stage (self-distillation).
        weight: factor of the divergence.
        temperature: T > 0.
        trainable: path patterns of what trains.

    Raises:
        ValueError: when a stage is checked, heads are unknown, without classes or of other sizes;
            in training, a student that is its own teacher has live batch statistics (`Method.state`
            does not see them, so that they cannot be kept: freeze the scale and bias).

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015. arXiv:1503.02531.
    """
    pairs = dict(heads) if isinstance(heads, Mapping) else {head: head for head in heads}

    def check(model: Model) -> None:
        _check_heads(model, teacher.model if teacher else model, pairs)

    def divergence(params: Params, student: dict, taught: dict) -> jax.Array:
        return sum(
            softened_divergence(
                student["logits"][own], taught["logits"][other], temperature=temperature
            )
            for own, other in pairs.items()
        )

    return _taught(tx, teacher, weight, divergence, trainable, check)


def distill_features(
    tx: optax.GradientTransformation,
    *,
    teacher: Teacher | None = None,
    weight: float = 1.0,
    projection: Module | None = None,
    trainable: Sequence[str] = (".*",),
) -> Method:
    """The supervised objective + weight * 1/2 |projection(features) - teacher's features|^2.

    The squared distance is a sum over the features and the weighted mean over all examples of the
    batch.

    Args:
        tx: optax transformation.
        teacher: None for the student at the start of the stage.
        weight: factor of the distance.
        projection: of the student's features, such as `models.mlp_head((), 512)`, a linear map to
            512 features of the teacher; None where both are of one size. It trains too.
        trainable: path patterns of what trains.

    Raises:
        ValueError: as `distill`.

    Romero et al., "FitNets: Hints for Thin Deep Nets", 2015. arXiv:1412.6550; there the hint is a
    stage of its own, and reads a layer in the middle.
    """

    def distance(params: Params, student: dict, taught: dict) -> jax.Array:
        features = student["features"]
        if projection is not None:
            features = projection.apply(params["projection"], features)
        return hint(features, taught["features"])

    modules = {} if projection is None else {"projection": projection}
    return _taught(tx, teacher, weight, distance, trainable, modules=modules)


def _taught(
    tx: optax.GradientTransformation,
    teacher: Teacher | None,
    weight: float,
    distance: Callable[[Params, dict, dict], jax.Array],
    trainable: Sequence[str],
    check: Callable[[Model], None] = lambda model: None,
    modules: Mapping[str, Module] | None = None,
) -> Method:
    """The supervised objective + weight * the mean distance of student and teacher.

    Args:
        distance: (params, student's output, teacher's output) -> [batch, domains, ...].
    """
    trainable, modules = tuple(trainable), modules or {}
    outputs = _start_outputs if teacher is None else functools.partial(_outputs, teacher)

    def state_fn(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        check(model)
        if teacher is not None:
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), _shapes(teacher))
        return paths.split(params, lambda path: paths.matches(trainable, path))[0]

    def loss_fn(model, params, state, batch, rng, step):
        taught = jax.lax.stop_gradient(outputs(model, params, state, batch.inputs))
        student, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        loss, metrics = supervised(model.heads, student["logits"], batch)
        distances = distance(params, student, taught)
        distances = distances.reshape(*batch.present.shape, -1).mean(-1)
        distilled = jnp.mean(batch.present * distances)
        return loss + weight * distilled, (state, {**metrics, "distillation_loss": distilled})

    return Method(
        optimizers={"all": ((*trainable, *(f"{name}/.*" for name in modules)), tx)},
        updates=(Update(loss_fn, per_example=True),),
        modules=modules,
        state=state_fn,
        prepare=None if teacher is None else _reading(teacher),
    )


def _start_outputs(model: Model, params: Params, state: State, inputs: PyTree) -> dict:
    """Outputs of the student as it was at the start; what does not train is still the same."""
    statistics = paths.flatten(state.statistics)
    if moving := [path for path in statistics if paths.matches(model.live, path)]:
        raise ValueError(
            f"a student cannot be its own teacher with batch statistics that follow the data: "
            f"{', '.join(moving[:3])}{', ...' if moving[3:] else ''}. Leave the scale and bias of "
            "these layers out of `trainable`"
        )
    start = paths.nest(paths.flatten(params) | paths.flatten(state.method))
    return apply_flat(model, start, state, inputs)[0]


def _outputs(teacher: Teacher, model: Model, params: Params, state: State, inputs: PyTree) -> dict:
    kept = state.method
    return apply_flat(teacher.model, kept["params"], State(kept["statistics"]), inputs)[0]


def _shapes(teacher: Teacher) -> dict[str, PyTree]:
    def init() -> dict[str, PyTree]:
        inputs = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), teacher.inputs)
        params, statistics = teacher.model.init(jax.random.key(0), inputs)
        return {"params": params, "statistics": statistics}

    return jax.eval_shape(init)


def _reading(teacher: Teacher) -> Callable:
    """`Method.prepare` that puts the teacher's weights in place."""

    @functools.cache  # the file is read once for all seeds
    def read() -> dict[str, PyTree]:
        shapes = {name: paths.flatten(tree) for name, tree in _shapes(teacher).items()}
        leaves, report = teacher.weights.read(shapes["params"] | shapes["statistics"])
        logger.info("teacher from %s: %s", teacher.weights.name, report)
        return {
            name: paths.nest({path: leaves[path] for path in tree}) for name, tree in shapes.items()
        }

    def prepare(model, params, state, domains):
        return params, state._replace(method=read())

    return prepare


def _check_heads(student: Model, teacher: Model, pairs: Mapping[str, str]) -> None:
    """Raises ValueError that lists all heads which cannot be distilled."""
    problems = []
    for own, other in pairs.items():
        known = {"student": (own, student.heads), "teacher": (other, teacher.heads)}
        missing = [
            f"{who}: {paths.unknown('head', name, heads)}"
            for who, (name, heads) in known.items()
            if name not in heads
        ]
        problems += dict.fromkeys(missing)
        if not missing:
            one, two = student.heads[own], teacher.heads[other]
            if not (one.integer and two.integer) or one.size != two.size:
                problems.append(
                    f"heads {own!r} and {other!r} must be of the same classes to be distilled"
                )
    if problems or not pairs:
        raise ValueError("\n".join(problems) or "heads: name at least one to distil")
