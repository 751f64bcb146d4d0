"""BYOL: one view predicts what an averaged copy of the model makes of the other."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.methods.pretrain.views import (
    PREDICTOR,
    PROJECTOR,
    Augment,
    encode,
    flat,
    on_features,
    on_outputs,
    other_views,
    spread,
    two_views,
    unit,
    unlabelled_rows,
)
from jaxtl.methods.teacher import average, start_teacher, teacher_outputs
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import mlp_head
from jaxtl.paths import flatten, nest
from jaxtl.plan import Method, Module


def byol(
    tx: optax.GradientTransformation | Groups,
    *,
    augment: Augment,
    decay: float = 0.99,
    projector: Module | None = None,
    predictor: Module | None = None,
) -> Method:
    """2 - 2 cos(what is predicted from a view, the copy's projection of the other one).

    The copy, projector included, is an exponential moving average of what trains, has batch
    statistics of its own and no gradient. It takes in the student as each step finds it. In the
    paper its decay rises from 0.996 to 1 within a much longer training.

    Args:
        decay: in [0, 1) of the average.
        projector: of features [n, width]; one hidden layer of 128 with BatchNorm and 128 outputs if
            None.
        predictor: of projections, with as many outputs; likewise if None.

    Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020. arXiv:2006.07733, Eq. 2.
    """
    groups = as_groups(tx)
    projector = on_features(projector or mlp_head((128,), 128, batch_norm=True))
    predictor = on_outputs(predictor or mlp_head((128,), 128, batch_norm=True), projector)

    def loss_fn(model, params, state, batch, rng, step):
        copy = {**state.method, "params": average(state.method, params, decay)}
        inputs = two_views(augment, jax.random.fold_in(rng, 1), unlabelled_rows(batch))
        output, copy["statistics"] = teacher_outputs(
            model, params, copy, inputs, rng=jax.random.fold_in(rng, 2), train=True
        )
        whole = nest(flatten(params) | flatten(copy["params"]))
        targets = projector.apply(whole[PROJECTOR], flat(output["features"]))
        targets = jax.lax.stop_gradient(other_views(targets))

        features, state = encode(model, params, state, inputs, rng)
        projections = projector.apply(params[PROJECTOR], features)
        predictions = predictor.apply(params[PREDICTOR], projections)
        loss = 2 - 2 * jnp.mean(jnp.sum(unit(predictions) * unit(targets), -1))
        copy = jax.lax.stop_gradient(copy)
        return loss, (state._replace(method=copy), {"spread": spread(projections)})

    return one_update(
        groups,
        loss_fn,
        per_example=False,
        modules={PROJECTOR: projector, PREDICTOR: predictor},
        state=start_teacher(groups),
        unweighted=True,
    )
