"""DeepJDOT: source examples are transported to target examples alike in features and class."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import sinkhorn, squared_distances
from jaxtl.methods.adapt.sides import Side, Weight, regularised
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.plan import Method


def deep_jdot(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight = 1.0,
    feature_weight: float = 1.0,
    label_weight: float = 1.0,
    regularization: float = 0.05,
    num_steps: int = 100,
) -> Method:
    """The supervised objective + weight * the cost of the best transport of sources to targets.

    Moving a labelled source example to a target example costs feature_weight * the squared
    distance of their features + label_weight * the cross-entropy of the target's prediction with
    the source's label. The plan is entropic (Sinkhorn), where the paper solves the linear
    programme, and a constant of the gradient, as there.

    Args:
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        weight: factor of the transport's cost, or step -> factor.
        feature_weight, label_weight: the paper's alpha and lambda_t. It chooses them per problem;
            1 and 1 are those of SKADA.
        regularization: of the plan's entropy, as a share of the mean cost.
        num_steps: Sinkhorn iterations.

    Damodaran et al., "DeepJDOT: Deep Joint Distribution Optimal Transport for Unsupervised Domain
    Adaptation", ECCV 2018. arXiv:1803.10081.
    """

    def penalty(source: Side, target: Side):
        known = jnp.where(source.weights > 0, source.present, 0)
        mass, other = (_shares(weights) for weights in (known, target.present))
        log_p = jax.nn.log_softmax(target.logits)
        cost = feature_weight * squared_distances(source.features, target.features)
        cost -= label_weight * log_p[:, jnp.maximum(source.labels, 0)].T
        fixed = jax.lax.stop_gradient(cost)
        scale = jnp.maximum(mass @ fixed @ other, jnp.finfo(fixed.dtype).tiny)
        plan = sinkhorn(
            fixed / scale, mass, other, regularization=regularization, num_steps=num_steps
        )
        return jnp.sum(jax.lax.stop_gradient(plan) * cost)

    return regularised(tx, "joint_cost", penalty, weight=weight)


def _shares(weights: jax.Array) -> jax.Array:
    """[n] >= 0 of sum 1; zeros where none is positive."""
    total = weights.sum()
    return weights / jnp.where(total > 0, total, 1)
