"""SimSiam: one view predicts the other, which is held still."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.methods.pretrain.views import (
    PREDICTOR,
    PROJECTOR,
    Augment,
    encode,
    on_features,
    on_outputs,
    other_views,
    spread,
    two_views,
    unit,
    unlabelled_rows,
)
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import mlp_head
from jaxtl.plan import Method, Module


def simsiam(
    tx: optax.GradientTransformation | Groups,
    *,
    augment: Augment,
    projector: Module | None = None,
    predictor: Module | None = None,
) -> Method:
    """Minus the cosine of what is predicted from a view with the projection of the other one.

    The projection that is predicted is a constant of the gradient: without that, or without the
    predictor, all views end as one vector. Watch `spread`, and the effective rank in the report.
    The paper normalises the projector's outputs too.

    Args:
        projector: of features [n, width]; one hidden layer of 128 with BatchNorm and 128 outputs if
            None.
        predictor: of projections, with as many outputs; one hidden layer of 32, likewise, if None.

    Chen & He, "Exploring Simple Siamese Representation Learning", CVPR 2021. arXiv:2011.10566,
    Algorithm 1.
    """
    projector = on_features(projector or mlp_head((128,), 128, batch_norm=True))
    predictor = on_outputs(predictor or mlp_head((32,), 128, batch_norm=True), projector)

    def loss_fn(model, params, state, batch, rng, step):
        inputs = two_views(augment, jax.random.fold_in(rng, 1), unlabelled_rows(batch))
        features, state = encode(model, params, state, inputs, rng)
        projections = projector.apply(params[PROJECTOR], features)
        predictions = predictor.apply(params[PREDICTOR], projections)
        targets = jax.lax.stop_gradient(other_views(projections))
        loss = -jnp.mean(jnp.sum(unit(predictions) * unit(targets), -1))
        return loss, (state, {"spread": spread(projections)})

    return one_update(
        as_groups(tx),
        loss_fn,
        per_example=False,
        modules={PROJECTOR: projector, PREDICTOR: predictor},
        unweighted=True,
    )
