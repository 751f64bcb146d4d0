"""Projecting conflicting gradients: what one task takes from another is left out."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import task_losses
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.paths import flatten, matches, nest
from jaxtl.plan import Combine, Method, PyTree

DECAY = 0.99
"""Of the moving average of conflicts."""


def pcgrad(
    tx: optax.GradientTransformation | Groups,
    *,
    shared: Sequence[str] = ("backbone/.*",),
) -> Method:
    """The sum of the tasks' gradients, each without its conflicts with the others; Algorithm 1.

    A task is a head with labels. Each gradient g_i meets the others in an order of its own, drawn
    for every step: where g_i . g_j < 0 its part along g_j (as it was) is taken away. As in the
    paper this concerns what the tasks share; the rest gets the sum of the gradients. The share of
    pairs that conflict is logged as `conflicts`, a moving average.

    Args:
        shared: path patterns of what the tasks share.

    Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020. arXiv:2001.06782.
    """
    shared = tuple(shared)

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        losses, metrics = task_losses(model.heads, output["logits"], batch)
        return losses, (state, metrics)

    def init(trainable: PyTree, losses: jax.Array) -> PyTree:
        return {"conflicts": jnp.zeros(()), "steps": jnp.int32(0)}

    def combine(jacobian: PyTree, losses: jax.Array, state: PyTree, rng: jax.Array):
        rows = {name: flatten(params) for name, params in jacobian.items()}
        tasks = len(losses)
        products = jnp.zeros((tasks, tasks))
        for group in rows.values():
            for path, leaf in group.items():
                if matches(shared, path):
                    products += jnp.tensordot(leaf.reshape(tasks, -1), leaf.reshape(tasks, -1).T, 1)
        weights = project_conflicts(products, rng).sum(0)

        def total(path: str, leaf: jax.Array) -> jax.Array:
            return jnp.tensordot(weights, leaf, 1) if matches(shared, path) else leaf.sum(0)

        grads = {
            name: nest({path: total(path, leaf) for path, leaf in group.items()})
            for name, group in rows.items()
        }
        share = jnp.sum(products < 0) / max(1, tasks * (tasks - 1))
        steps = state["steps"] + 1
        average = DECAY * state["conflicts"] + (1 - DECAY) * share
        metrics = {"conflicts": average / (1 - DECAY**steps)}
        return grads, {"conflicts": average, "steps": steps}, metrics

    return one_update(as_groups(tx), loss_fn, per_example=True, combine=Combine(init, combine))


def project_conflicts(products: jax.Array, rng: jax.Array) -> jax.Array:
    """Row i: the coefficients, in the given gradients, of gradient i without its conflicts.

    All that is asked are inner products, so the gradients themselves are not needed.

    Args:
        products: [tasks, tasks], g_i . g_j.
        rng: key of the orders in which the others are met.

    Returns:
        [tasks, tasks].
    """
    tasks = len(products)

    def row(task: jax.Array, order: jax.Array) -> jax.Array:
        def meet(coefficients: jax.Array, other: jax.Array):
            along, length = coefficients @ products[:, other], products[other, other]
            conflict = (along < 0) & (other != task) & (length > 0)
            share = jnp.where(conflict, along / jnp.where(length > 0, length, 1), 0)
            return coefficients.at[other].add(-share), None

        return jax.lax.scan(meet, jax.nn.one_hot(task, tasks, dtype=products.dtype), order)[0]

    orders = jax.vmap(lambda key: jax.random.permutation(key, tasks))(jax.random.split(rng, tasks))
    return jax.vmap(row)(jnp.arange(tasks), orders)
