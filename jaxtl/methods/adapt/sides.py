"""Source and target side of a batch, and methods that add a term to the supervised objective.

The roles of a stage's domains say which are sources and which are targets. Labels train wherever a
domain is `labelled`: sources, and also a target that has a few labels, which says so by its role
(three streams: `labelled(source, head)`, `labelled(few, head, role="target")`,
`unlabelled(target, head)`). All domains name one head.

Terms that look at examples without their labels weigh them by `present`, the examples' own weights:
a weight of 2 is an example that is there twice. Where examples are coupled (kernels, covariances,
transport, a critic) only the proportions within a side count, or frequencies as the loss says; a
mean over examples divides by their number, as the supervised objective does.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import supervised
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Batch, LossFn, Method, Model, Module, Params, PyTree, StageShape, State
from jaxtl.plan.batch import sides_of


class Side(NamedTuple):
    """The examples of the source domains, or of the target domains, example by example.

    Attributes:
        features: [n, features].
        logits: [n, classes].
        labels: [n] int, -1 where missing or hidden.
        weights: [n] float >= 0, 0 where the label must not be used.
        domains: [n] int, the index of each example's domain in the stage.
        present: [n] float >= 0, the example's own weight, labels apart.
    """

    features: jax.Array
    logits: jax.Array
    labels: jax.Array
    weights: jax.Array
    domains: jax.Array
    present: jax.Array


Term = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
Weight = float | optax.Schedule


def at_step(value: Weight, step: jax.Array) -> jax.Array:
    """A factor [] float32 that may follow a schedule."""
    return jnp.asarray(value(step) if callable(value) else value, jnp.float32)


def head_of(batch: Batch) -> str:
    """The one head that all domains of a batch name.

    Raises:
        ValueError: there are several.
    """
    return _only(batch.labels)


def classes_of(shape: StageShape) -> int:
    """Number of classes of the one head that all domains of a stage name.

    Raises:
        ValueError: there are several heads.
    """
    return shape.classes[_only(shape.classes)]


def _only(heads: Mapping[str, object]) -> str:
    if len(heads) > 1:
        raise ValueError(
            f"domain adaptation reads one head that all domains name; these name "
            f"{', '.join(sorted(heads))}"
        )
    return next(iter(heads))


def at_domains(tree: PyTree, positions: Sequence[int]) -> PyTree:
    """Of leaves [batch, domains, ...] some domains, in this order.

    By static slices, one for each run of neighbours. A loss that regroups inputs so and hands them
    to the model alone lets the engine start from the features of blocks that are frozen.
    """
    runs: list[tuple[int, int]] = []
    for position in positions:
        if runs and runs[-1][1] == position:
            runs[-1] = (runs[-1][0], position + 1)
        else:
            runs.append((position, position + 1))

    def part(leaf: jax.Array) -> jax.Array:
        slices = [leaf[:, start:stop] for start, stop in runs]
        return slices[0] if len(slices) == 1 else jnp.concatenate(slices, 1)

    return jax.tree.map(part, tree)


def as_rows(tree: PyTree) -> PyTree:
    """Leaves [batch, domains, ...] as [batch * domains, ...], in the order of `Side`.

    Example by example, so that what is sharded along the batch stays where it is.
    """
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)


def targets_of(tree: PyTree, batch: Batch) -> PyTree:
    """Of leaves [batch, domains, ...] the rows [n, ...] of the targets, in the order of `Side`."""
    return as_rows(at_domains(tree, sides_of(batch.roles)[1]))


def split_sides(output: Mapping, batch: Batch) -> tuple[Side, Side]:
    """(source side, target side) of what `apply_flat` returns.

    Args:
        output: {"features": [batch, domains, ...], "logits": {head: [batch, domains, classes]}}.
        batch: with labels, weights, `present` and roles.

    Raises:
        ValueError: there is no source or no target, or the domains name several heads.
    """
    source, target = sides_of(batch.roles)
    head, (size, domains) = head_of(batch), output["features"].shape[:2]
    whole = Side(
        output["features"].reshape(size, domains, -1),
        output["logits"][head],
        batch.labels[head],
        batch.weights[head],
        jnp.broadcast_to(jnp.arange(domains), (size, domains)),
        jnp.asarray(batch.present),
    )
    return as_rows(at_domains(whole, source)), as_rows(at_domains(whole, target))


def example_mean(losses: jax.Array, present: jax.Array) -> jax.Array:
    """sum_i present_i losses_i / n: linear in the weights, so that it may be cut into batches.

    Args:
        losses: [n] float; those of weight 0 may be anything.
        present: [n] float >= 0.
    """
    return jnp.mean(jnp.where(present > 0, present * losses, 0))


def objective(term: Term) -> LossFn:
    """The supervised objective + a term, as the loss of an update.

    Args:
        term: as in `adapted`.
    """

    def loss_fn(model: Model, params: Params, state: State, batch: Batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        source, target = split_sides(output, batch)
        value, metrics = term(params, source, target, jax.random.fold_in(rng, 1), step)
        return task + value, (state, {"task_loss": task, **metrics})

    return loss_fn


def adapted(
    tx: optax.GradientTransformation | Groups,
    term: Term,
    *,
    modules: Mapping[str, Module] | None = None,
    per_example: bool = False,
    **attributes,
) -> Method:
    """The supervised objective + a term that compares the sides, minimised together.

    Args:
        tx: optax transformation of all parameters (of the modules too), or groups as in
            `transfer.grouped`.
        term: (params, source: Side, target: Side, rng, step) -> (value [], {metric: []}).
        modules: networks of the method's own, {name: Module}.
        per_example: as in `Update`: the term is a mean over examples of equally many a domain.
        attributes: others of the method.
    """

    return one_update(
        as_groups(tx),
        objective(term),
        per_example=per_example,
        modules=dict(modules or {}),
        **attributes,
    )


def regularised(
    tx: optax.GradientTransformation | Groups,
    name: str,
    penalty: Callable[[Side, Side], jax.Array],
    *,
    weight: Weight,
    per_example: bool = False,
) -> Method:
    """The supervised objective + weight * a penalty on the sides, which is logged by its name.

    Args:
        tx, per_example: as in `adapted`.
        name: of the metric.
        penalty: (source, target) -> [], needs neither parameters nor random numbers.
        weight: factor of the penalty, or step -> factor.
    """

    def term(params: Params, source: Side, target: Side, rng: jax.Array, step: jax.Array):
        del params, rng
        value = penalty(source, target)
        return at_step(weight, step) * value, {name: value}

    return adapted(tx, term, per_example=per_example)
