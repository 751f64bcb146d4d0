"""Adaptive feature norm: features of both domains grow alike."""

import jax.numpy as jnp
import optax

from jaxtl.losses import adaptive_feature_norm, supervised
from jaxtl.methods.adapt.sides import Weight, at_step, flat_features, rows_by_side
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


def afn(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight = 0.05,
    increment: float = 1.0,
) -> Method:
    """The supervised objective + weight * the stepwise norm losses of source and target.

    Each asks for norms larger by `increment` than they are: its value is always increment^2, its
    gradient is what counts. The mean norms are the metrics `source_norm` and `target_norm`. The
    paper's L2-preserving dropout is the backbone's business.

    Args:
        weight: 0.05 in the paper.
        increment: the paper's step size, Delta r.

    Xu et al., "Larger Norm More Transferable: An Adaptive Feature Norm Approach for Unsupervised
    Domain Adaptation", ICCV 2019. arXiv:1811.07456.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        norm_loss, metrics = jnp.zeros(()), {"task_loss": task}
        sides = rows_by_side((flat_features(output), batch.present), batch)
        for name, (features, present) in zip(("source_norm", "target_norm"), sides, strict=True):
            losses = adaptive_feature_norm(features, present, increment=increment)
            norm_loss += present.mean() * losses
            metrics[name] = jnp.linalg.norm(features, axis=-1).mean()
        return task + at_step(weight, step) * norm_loss, (state, metrics)

    return one_update(as_groups(tx), loss_fn, per_example=True)
