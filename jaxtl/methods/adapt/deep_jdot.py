"""DeepJDOT: source examples are transported to target examples alike in features and class."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import sinkhorn, squared_distances, supervised
from jaxtl.methods.adapt.sides import (
    Weight,
    at_step,
    flat_features,
    head_of,
    labelled_weights,
    rows_by_side,
    source_rows,
    target_rows,
)
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
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
        feature_weight, label_weight: the paper's alpha and lambda_t. It chooses them per problem;
            1 and 1 are those of SKADA.
        regularization: of the plan's entropy, as a share of the mean cost.
        num_steps: Sinkhorn iterations.

    Damodaran et al., "DeepJDOT: Deep Joint Distribution Optimal Transport for Unsupervised Domain
    Adaptation", ECCV 2018. arXiv:1803.10081.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        head = head_of(batch)
        source_mass = _shares(source_rows(labelled_weights(batch), batch))
        target_mass = _shares(target_rows(batch.present, batch))
        log_p = jax.nn.log_softmax(target_rows(output["logits"][head], batch))
        # Examples without a label have no mass: any class will do.
        labels = jnp.maximum(source_rows(batch.labels[head], batch), 0)
        cost = feature_weight * squared_distances(*rows_by_side(flat_features(output), batch))
        cost -= label_weight * log_p[:, labels].T
        constant = jax.lax.stop_gradient(cost)
        mean_cost = source_mass @ constant @ target_mass
        plan = sinkhorn(
            constant / jnp.maximum(mean_cost, jnp.finfo(constant.dtype).tiny),
            source_mass,
            target_mass,
            regularization=regularization,
            num_steps=num_steps,
        )
        joint_cost = jnp.sum(jax.lax.stop_gradient(plan) * cost)
        loss = task + at_step(weight, step) * joint_cost
        return loss, (state, {"task_loss": task, "joint_cost": joint_cost})

    return one_update(as_groups(tx), loss_fn, per_example=False)


def _shares(weights: jax.Array) -> jax.Array:
    """[n] >= 0 of sum 1; zeros where none is positive."""
    total = weights.sum()
    return weights / jnp.where(total > 0, total, 1)
