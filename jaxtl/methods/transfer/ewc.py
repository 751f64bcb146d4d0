"""Elastic weight consolidation: what mattered to former tasks is held near where they left it."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from jaxtl import paths
from jaxtl.losses import supervised
from jaxtl.methods.transfer.fisher import exact_fisher
from jaxtl.models import apply_flat
from jaxtl.plan import Columns, Method, Model, Params, PyTree, StageShape, State, Statistics, Update

Add = Callable[[PyTree, Params, Params], PyTree]
"""(penalty so far, Fisher information, parameters at which a task ended) -> penalty."""


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
        tx: optax transformation.
        strength: the paper's lambda >= 0, for mean losses and mean squared gradients.
        fisher: `exact_fisher` or `empirical_fisher`.
        trainable: path patterns of what trains.

    Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", 2017.
    arXiv:1612.00796, Eq. 3; with a sum over former tasks, as in its experiments.
    """
    return _consolidated(tx, strength, fisher, trainable, _summed)


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

    def add(past: PyTree, information: Params, params: Params) -> PyTree:
        precision = jax.tree.map(lambda old, new: gamma * old + new, past["precision"], information)
        return {"precision": precision, "mean": params, "constant": past["constant"]}

    return _consolidated(tx, strength, fisher, trainable, add)


def _summed(past: PyTree, information: Params, params: Params) -> PyTree:
    """P (x - m)^2 + F (x - a)^2 = (P + F) (x - n)^2 + P F / (P + F) (a - m)^2, for each number."""
    precision = jax.tree.map(jnp.add, past["precision"], information)
    share = jax.tree.map(
        lambda new, all_: new / jnp.where(all_ > 0, all_, 1), information, precision
    )
    gap = jax.tree.map(jnp.subtract, params, past["mean"])
    mean = jax.tree.map(lambda old, s, g: old + s * g, past["mean"], share, gap)
    apart = jax.tree.map(lambda old, s, g: jnp.sum(old * s * g**2), past["precision"], share, gap)
    constant = past["constant"] + sum(jax.tree.leaves(apart))
    return {"precision": precision, "mean": mean, "constant": constant}


def _consolidated(
    tx: optax.GradientTransformation,
    strength: float,
    fisher: Callable[..., Params],
    trainable: Sequence[str],
    add: Add,
) -> Method:
    trainable = tuple(trainable)

    def chosen(path: str) -> bool:
        return paths.matches(trainable, path)

    def state_fn(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        moving = paths.split(params, chosen)[0]
        nothing = jax.tree.map(jnp.zeros_like, moving)
        return {"precision": nothing, "mean": moving, "constant": jnp.zeros(())}

    def prepare(model: Model, params: Params, state: State, domains: list, *, former: Columns):
        information = fisher(model, params, state, former, chosen)
        ended = paths.split(params, chosen)[0]
        return params, state._replace(method=add(state.method, information, ended))

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        loss, metrics = supervised(model.heads, output["logits"], batch)
        value = 0.5 * penalty(state.method, params)
        return loss + strength * value, (state, {**metrics, "penalty": value})

    return Method(
        optimizers={"all": (trainable, tx)},
        updates=(Update(loss_fn, per_example=True),),
        state=state_fn,
        remembers=True,
        prepare=prepare,
        reads=("former",),
    )


def penalty(kept: PyTree, params: Params) -> jax.Array:
    """sum_i sum_k F_ik (theta_k - theta*_ik)^2 [], of the state of `ewc`.

    Args:
        kept: {"precision": sum_i F_i, "mean": their weighted mean of theta*_i, "constant": []};
            the trees hold what trains.
        params: all parameters.
    """
    now = paths.flatten(params)
    precision, mean = paths.flatten(kept["precision"]), paths.flatten(kept["mean"])
    squares = [jnp.sum(precision[path] * (now[path] - mean[path]) ** 2) for path in mean]
    return sum(squares) + kept["constant"]
