"""Barlow Twins: each output agrees with itself across two views, and with no other output."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.methods.pretrain.views import (
    PROJECTOR,
    Augment,
    encode,
    on_features,
    spread,
    two_views,
    unlabelled_rows,
)
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import mlp_head
from jaxtl.plan import Method, Module


def barlow_twins(
    tx: optax.GradientTransformation | Groups,
    *,
    augment: Augment,
    redundancy: float = 5e-3,
    projector: Module | None = None,
) -> Method:
    """The distance of the correlations between two views' projections from the identity matrix.

    Args:
        redundancy: factor of what is off the diagonal, the paper's lambda.
        projector: of features [n, width]; one hidden layer of 128 with BatchNorm and 128 outputs if
            None. The paper has two of 8,192 and as many outputs.

    Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021.
    arXiv:2103.03230, Eq. 1.
    """
    projector = on_features(projector or mlp_head((128,), 128, batch_norm=True))

    def loss_fn(model, params, state, batch, rng, step):
        inputs = two_views(augment, jax.random.fold_in(rng, 1), unlabelled_rows(batch))
        features, state = encode(model, params, state, inputs, rng)
        projections = projector.apply(params[PROJECTOR], features)
        correlations = cross_correlation(*jnp.split(projections, 2))
        diagonal = jnp.diagonal(correlations)
        invariance = jnp.sum((1 - diagonal) ** 2)
        off_diagonal = jnp.sum(correlations**2) - jnp.sum(diagonal**2)
        metrics = {"invariance": invariance, "redundancy": off_diagonal}
        metrics["spread"] = spread(projections)
        return invariance + redundancy * off_diagonal, (state, metrics)

    return one_update(
        as_groups(tx),
        loss_fn,
        per_example=False,
        modules={PROJECTOR: projector},
        unweighted=True,
    )


def cross_correlation(first: jax.Array, second: jax.Array) -> jax.Array:
    """Correlations over the examples of each column of one with each of the other.

    Args:
        first: [n, width] float.
        second: [n, others] float.

    Returns:
        [width, others] float in [-1, 1]; 0 where a column is constant.
    """
    first, second = map(_standardize, (first, second))
    return jnp.matmul(first.T, second, precision="highest") / len(first)


def _standardize(columns: jax.Array) -> jax.Array:
    centred = columns - columns.mean(0, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(0, keepdims=True) + 1e-8)
