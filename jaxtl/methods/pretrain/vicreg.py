"""VICReg: two views are projected to one place, and the places keep their variance."""

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


def vicreg(
    tx: optax.GradientTransformation | Groups,
    *,
    augment: Augment,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    projector: Module | None = None,
) -> Method:
    """Distance of two views, lack of spread of each output, covariance of different ones.

    The distance is a mean over the outputs too, the lack of spread a mean over both views: as in
    the authors' code, which halves the paper's second term.

    Args:
        invariance, variance, covariance: factors of the three terms, the paper's lambda, mu and nu.
        projector: of features [n, width]; one hidden layer of 128 with BatchNorm and 128 outputs if
            None. The paper has two of 8,192 and as many outputs.

    Bardes, Ponce & LeCun, "VICReg: Variance-Invariance-Covariance Regularization for
    Self-Supervised Learning", ICLR 2022. arXiv:2105.04906, Eq. 1 to 6.
    """
    projector = on_features(projector or mlp_head((128,), 128, batch_norm=True))

    def loss_fn(model, params, state, batch, rng, step):
        inputs = two_views(augment, jax.random.fold_in(rng, 1), unlabelled_rows(batch))
        features, state = encode(model, params, state, inputs, rng)
        projections = projector.apply(params[PROJECTOR], features)
        first, second = jnp.split(projections, 2)
        distance = jnp.mean((first - second) ** 2)
        lack = (lack_of_spread(first) + lack_of_spread(second)) / 2
        shared = shared_covariance(first) + shared_covariance(second)
        loss = invariance * distance + variance * lack + covariance * shared
        metrics = {"invariance": distance, "variance": lack, "covariance": shared}
        return loss, (state, metrics | {"spread": spread(projections)})

    return one_update(
        as_groups(tx),
        loss_fn,
        per_example=False,
        modules={PROJECTOR: projector},
        unweighted=True,
    )


def lack_of_spread(projections: jax.Array) -> jax.Array:
    """The mean over the outputs of max(0, 1 - sqrt(variance + 1e-4)); projections [n, width]."""
    return jnp.mean(jax.nn.relu(1 - jnp.sqrt(projections.var(0, ddof=1) + 1e-4)))


def shared_covariance(projections: jax.Array) -> jax.Array:
    """Sum of the squared covariances of different outputs / width; projections [n, width]."""
    n, width = projections.shape
    centred = projections - projections.mean(0, keepdims=True)
    covariances = jnp.matmul(centred.T, centred, precision="highest") / (n - 1)
    return jnp.sum(jnp.where(jnp.eye(width, dtype=bool), 0, covariances) ** 2) / width
