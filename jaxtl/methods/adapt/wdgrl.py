"""Wasserstein distance guided representation learning: a critic measures how far domains are."""

import jax
import optax

from jaxtl.losses import gradient_penalty
from jaxtl.losses.weighting import weigh, weighted_mean
from jaxtl.methods.adapt.adversary import with_opponent
from jaxtl.methods.adapt.sides import Side, Weight, at_step, objective, split_sides
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
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        critic_tx: of the critic; `tx` if None.
        critic_steps: the paper's n = 5.
        weight: factor of the distance, the paper's lambda, or step -> factor.
        penalty: the paper's gamma = 10.
        critic: features [..., features] -> [..., 1]; by default one hidden layer of 100.

    Raises:
        ValueError: `tx` is groups and there is no `critic_tx`.

    Shen et al., "Wasserstein Distance Guided Representation Learning for Domain Adaptation", AAAI
    2018. arXiv:1707.01217.
    """
    network = critic or mlp_head((100,), 1)
    groups, others = with_opponent(tx, CRITIC, (f"{CRITIC}/.*",), critic_tx)

    def distance(params: Params, source: Side, target: Side):
        means = []
        for side in (source, target):
            scores, present, _ = weigh(network.apply(params[CRITIC], side.features), side.present)
            means.append(weighted_mean(scores[:, 0], present))
        return means[0] - means[1]

    def critic_loss(model, params, state, batch, rng, step):
        output, _ = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        source, target = split_sides(output, batch)

        def score(features: jax.Array) -> jax.Array:
            return network.apply(params[CRITIC], features)[..., 0]

        steep = gradient_penalty(
            score,
            jax.random.fold_in(rng, 1),
            source.features,
            target.features,
            source.present,
            target.present,
        )
        loss = penalty * steep - distance(params, source, target)
        return loss, (state, {"gradient_penalty": steep})

    def term(params: Params, source: Side, target: Side, rng: jax.Array, step: jax.Array):
        value = distance(params, source, target)
        return at_step(weight, step) * value, {"wasserstein": value}

    updates = (
        Update(critic_loss, (CRITIC,), repeat=critic_steps),
        Update(objective(term), others),
    )
    return Method(groups, updates, modules={CRITIC: network})
