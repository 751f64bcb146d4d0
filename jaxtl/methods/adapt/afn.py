"""Adaptive feature norm: features of both domains grow alike."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import adaptive_feature_norm
from jaxtl.methods.adapt.sides import Side, Weight, adapted, at_step
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.plan import Method, Params


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
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        weight: factor of the two losses, or step -> factor; 0.05 in the paper.
        increment: the paper's step size, Delta r.

    Xu et al., "Larger Norm More Transferable: An Adaptive Feature Norm Approach for Unsupervised
    Domain Adaptation", ICCV 2019. arXiv:1811.07456.
    """

    def term(params: Params, source: Side, target: Side, rng: jax.Array, step: jax.Array):
        del params, rng
        value, metrics = jnp.zeros(()), {}
        for name, side in (("source_norm", source), ("target_norm", target)):
            losses = adaptive_feature_norm(side.features, side.present, increment=increment)
            value += side.present.mean() * losses
            metrics[name] = jnp.linalg.norm(side.features, axis=-1).mean()
        return at_step(weight, step) * value, metrics

    return adapted(tx, term, per_example=True)
