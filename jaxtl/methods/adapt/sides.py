"""Source and target side of a batch, and methods that add a term to the supervised objective.

The first domains of a stage are the sources, the others the targets. Labels train wherever a
domain is `labelled`: sources, and also a target that has a few labels (three streams: source,
labelled target, unlabelled target). All domains name one head.

Terms that look at examples without their labels weigh them by `present`, the examples' own weights:
a weight of 2 is an example that is there twice. Where examples are coupled (kernels, covariances,
transport, a critic) only the proportions within a side count, or frequencies as the loss says; a
mean over examples divides by their number, as the supervised objective does.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import supervised
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Batch, LossFn, Method, Model, Module, Params, State


class Side(NamedTuple):
    """The examples of the source domains, or of the target domains, one domain after another.

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
    if len(batch.labels) > 1:
        raise ValueError(
            f"domain adaptation reads one head that all domains name; these name "
            f"{', '.join(sorted(batch.labels))}"
        )
    return next(iter(batch.labels))


def split_sides(output: Mapping, batch: Batch, sources: int = 1) -> tuple[Side, Side]:
    """(source side, target side) of what `apply_flat` returns.

    Args:
        output: {"features": [batch, domains, ...], "logits": {head: [batch, domains, classes]}}.
        batch: with labels, weights and `present`.
        sources: how many of the first domains are sources.

    Raises:
        ValueError: no target is left, or the domains name several heads.
    """
    head, (size, domains) = head_of(batch), output["features"].shape[:2]
    if not 0 < sources < domains:
        raise ValueError(
            f"{sources} of {domains} domains are sources; at least one source and one target needed"
        )
    whole = Side(
        output["features"].reshape(size, domains, -1),
        output["logits"][head],
        batch.labels[head],
        batch.weights[head],
        jnp.broadcast_to(jnp.arange(domains), (size, domains)),
        jnp.asarray(batch.present),
    )

    def part(chosen: slice) -> Side:
        # Example by example, so that what is sharded along the batch stays where it is.
        return Side(*(leaf[:, chosen].reshape(-1, *leaf.shape[2:]) for leaf in whole))

    return part(slice(None, sources)), part(slice(sources, None))


def example_mean(losses: jax.Array, present: jax.Array) -> jax.Array:
    """sum_i present_i losses_i / n: linear in the weights, so that it may be cut into batches.

    Args:
        losses: [n] float; those of weight 0 may be anything.
        present: [n] float >= 0.
    """
    return jnp.mean(jnp.where(present > 0, present * losses, 0))


def present_of(batch: Batch, chosen: slice) -> jax.Array:
    """The examples' own weights [n] in some of the domains, in the order of `Side`."""
    return jnp.asarray(batch.present)[:, chosen].reshape(-1)


def objective(term: Term, sources: int = 1) -> LossFn:
    """The supervised objective + a term, as the loss of an update.

    Args:
        term, sources: as in `adapted`.
    """

    def loss_fn(model: Model, params: Params, state: State, batch: Batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        source, target = split_sides(output, batch, sources)
        value, metrics = term(params, source, target, jax.random.fold_in(rng, 1), step)
        return task + value, (state, {"task_loss": task, **metrics})

    return loss_fn


def adapted(
    tx: optax.GradientTransformation | Groups,
    term: Term,
    *,
    sources: int = 1,
    modules: Mapping[str, Module] | None = None,
    per_example: bool = False,
    **attributes,
) -> Method:
    """The supervised objective + a term that compares the sides, minimised together.

    Args:
        tx: optax transformation of all parameters (of the modules too), or groups as in
            `transfer.grouped`.
        term: (params, source: Side, target: Side, rng, step) -> (value [], {metric: []}).
        sources: how many of the first domains are sources.
        modules: networks of the method's own, {name: Module}.
        per_example: as in `Update`: the term is a mean over examples of equally many a domain.
        attributes: others of the method.
    """

    loss_fn = objective(term, sources)
    return one_update(
        as_groups(tx), loss_fn, per_example=per_example, modules=dict(modules or {}), **attributes
    )


def regularised(
    tx: optax.GradientTransformation | Groups,
    name: str,
    penalty: Callable[[Side, Side], jax.Array],
    *,
    weight: Weight,
    sources: int = 1,
    per_example: bool = False,
) -> Method:
    """The supervised objective + weight * a penalty on the sides, which is logged by its name.

    Args:
        tx, sources, per_example: as in `adapted`.
        name: of the metric.
        penalty: (source, target) -> [], needs neither parameters nor random numbers.
        weight: factor of the penalty, or step -> factor.
    """

    def term(params: Params, source: Side, target: Side, rng: jax.Array, step: jax.Array):
        del params, rng
        value = penalty(source, target)
        return at_step(weight, step) * value, {name: value}

    return adapted(tx, term, sources=sources, per_example=per_example)
