"""Elastic weight consolidation: what mattered to former tasks is held near where they left it."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import supervised
from jaxtl.methods.transfer.fine_tuning import one_update
from jaxtl.methods.transfer.fisher import exact_fisher
from jaxtl.models import apply_flat
from jaxtl.paths import flatten, matches, split
from jaxtl.plan import Columns, Method, Model, Params, PyTree, StageShape, State, Statistics


def ewc(
    tx: optax.GradientTransformation,
    *,
    strength: float,
    fisher: Callable[..., Params] = exact_fisher,
    trainable: Sequence[str] = (".*",),
) -> Method:
    """The supervised objective + strength / 2 * sum_i sum_k F_ik (theta_k - theta*_ik)^2.

    i are the former tasks, theta*_i the parameters at the end of task i, and F_i the diagonal of
    its Fisher information there. One stage a task; the first trains by any other method.

    Each stage names the task before as its data `former`: the stage starts where that one ended, so
    `prepare` computes its information from these examples (a few hundred do: `train.take(500)`),
    and nothing else reads them. The penalty of all tasks is remembered from stage to stage: a sum
    of squares is one square about the weighted mean, and a constant.

        domains=[labelled(task_3.train, "digit")], data={"former": labelled(task_2.train, "digit")}

    Args:
        strength: the paper's lambda >= 0, for mean losses and mean squared gradients.
        fisher: `exact_fisher` or `empirical_fisher`.

    Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", 2017.
    arXiv:1612.00796, Eq. 3; with a sum over former tasks, as in its experiments.
    """
    chosen = functools.partial(matches, tuple(trainable))

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        mean = split(params, chosen)[0]
        nothing = jax.tree.map(jnp.zeros_like, mean)
        return {"precision": nothing, "mean": mean, "constant": jnp.zeros(())}

    def prepare(model: Model, params: Params, state: State, domains: list, *, former: Columns):
        information = fisher(model, params, state, former, chosen)
        penalties = _add_task(state.method, information, split(params, chosen)[0])
        return params, state._replace(method=penalties)

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        loss, metrics = supervised(model.heads, output["logits"], batch)
        half = 0.5 * penalty(state.method, params)
        return loss + strength * half, (state, {**metrics, "penalty": half})

    return one_update(
        {"all": (tuple(trainable), tx)},
        loss_fn,
        per_example=True,
        state=start,
        remembers=True,
        prepare=prepare,
        reads=("former",),
    )


def online_ewc(
    tx: optax.GradientTransformation,
    *,
    strength: float,
    gamma: float,
    fisher: Callable[..., Params] = exact_fisher,
    trainable: Sequence[str] = (".*",),
) -> Method:
    """`ewc` with one penalty about the end of the last task: its F is gamma * the one before + F_i.

    Args:
        gamma: in [0, 1], what is left of the information of earlier tasks after each further one.

    Schwarz et al., "Progress & Compress", ICML 2018. arXiv:1805.06370.
    """
    chosen = functools.partial(matches, tuple(trainable))

    def prepare(model: Model, params: Params, state: State, domains: list, *, former: Columns):
        information = fisher(model, params, state, former, chosen)
        precision = jax.tree.map(
            lambda old, new: gamma * old + new, state.method["precision"], information
        )
        last = {"precision": precision, "mean": split(params, chosen)[0]}
        return params, state._replace(method=state.method | last)

    method = ewc(tx, strength=strength, trainable=trainable)
    return dataclasses.replace(method, prepare=prepare)


def penalty(penalties: PyTree, params: Params) -> jax.Array:
    """sum_i sum_k F_ik (theta_k - theta*_ik)^2 [], of the state of `ewc`.

    Args:
        penalties: {"precision": sum_i F_i, "mean": their weighted mean of theta*_i, "constant":
            []}; the trees hold what trains.
        params: all parameters.
    """
    now, precision, mean = map(flatten, (params, penalties["precision"], penalties["mean"]))
    squares = [jnp.sum(precision[path] * (now[path] - mean[path]) ** 2) for path in mean]
    return sum(squares) + penalties["constant"]


def _add_task(penalties: PyTree, information: Params, params: Params) -> PyTree:
    """P (x - m)^2 + F (x - a)^2 = (P + F) (x - n)^2 + P F / (P + F) (a - m)^2, for each number."""

    def share(new, total):
        return new / jnp.where(total > 0, total, 1)

    old, mean = penalties["precision"], penalties["mean"]
    precision = jax.tree.map(jnp.add, old, information)
    shares = jax.tree.map(share, information, precision)
    gaps = jax.tree.map(jnp.subtract, params, mean)
    constants = jax.tree.map(lambda p, s, g: jnp.sum(p * s * g**2), old, shares, gaps)
    return {
        "precision": precision,
        "mean": jax.tree.map(lambda m, s, g: m + s * g, mean, shares, gaps),
        "constant": penalties["constant"] + sum(jax.tree.leaves(constants)),
    }
