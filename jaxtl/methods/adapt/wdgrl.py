"""Wasserstein distance guided representation learning: a critic measures how far domains are."""

import functools
from collections.abc import Sequence

import jax
import optax

from jaxtl.losses import gradient_penalty, supervised
from jaxtl.losses.weighting import weigh, weighted_mean
from jaxtl.methods.adapt.adversary import with_opponent
from jaxtl.methods.adapt.sides import Weight, at_step, flat_features, rows_by_side
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.models import apply_flat, mlp_head
from jaxtl.plan import Method, Module, Params, Update

CRITIC = "critic"


def wdgrl(
    tx: optax.GradientTransformation | Groups,
    *,
    critic_tx: optax.GradientTransformation | None = None,
    critic_steps: int = 5,
    weight: Weight = 1.0,
    penalty: float = 10.0,
    critic: Module | None = None,
) -> Method:
    """The supervised objective + weight * the Wasserstein distance of the features by a critic.

    The distance is the critic's mean on the source minus that on the target. Each training step
    the critic first makes `critic_steps` steps to increase it, less penalty * the mean of
    (gradient's norm - 1)^2 at random points between source and target features. The paper has the
    penalty at the features themselves too. Batch statistics follow the main update only.

    Args:
        critic_tx: of the critic; `tx` if None.
        critic_steps: the paper's n = 5.
        weight: the paper's lambda.
        penalty: the paper's gamma = 10.
        critic: features [..., features] -> [..., 1]; by default one hidden layer of 100.

    Raises:
        ValueError: `tx` is groups and there is no `critic_tx`.

    Shen et al., "Wasserstein Distance Guided Representation Learning for Domain Adaptation", AAAI
    2018. arXiv:1707.01217.
    """
    network = critic or mlp_head((100,), 1)
    groups, main = with_opponent(tx, CRITIC, (f"{CRITIC}/.*",), critic_tx)

    def score(params: Params, features: jax.Array) -> jax.Array:
        return network.apply(params[CRITIC], features)[..., 0]

    def wasserstein(params: Params, features: Sequence, present: Sequence) -> jax.Array:
        means = []
        for rows, weights in zip(features, present, strict=True):
            scores, weights, _ = weigh(score(params, rows), weights)
            means.append(weighted_mean(scores, weights))
        return means[0] - means[1]

    def critic_loss(model, params, state, batch, rng, step):
        output, _ = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        features = rows_by_side(flat_features(output), batch)
        present = rows_by_side(batch.present, batch)
        critic_of_now = functools.partial(score, params)
        key = jax.random.fold_in(rng, 1)
        steepness = gradient_penalty(critic_of_now, key, *features, *present)
        distance = wasserstein(params, features, present)
        return penalty * steepness - distance, (state, {"gradient_penalty": steepness})

    def task_loss(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        features = rows_by_side(flat_features(output), batch)
        distance = wasserstein(params, features, rows_by_side(batch.present, batch))
        loss = task + at_step(weight, step) * distance
        return loss, (state, {"task_loss": task, "wasserstein": distance})

    updates = (Update(critic_loss, (CRITIC,), repeat=critic_steps), Update(task_loss, main))
    return Method(groups, updates, modules={CRITIC: network})
