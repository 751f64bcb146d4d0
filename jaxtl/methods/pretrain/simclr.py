"""SimCLR: the two views of an example are nearer to each other than to those of all others."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.methods.pretrain.views import (
    PROJECTOR,
    Augment,
    encode,
    on_features,
    other_views,
    spread,
    two_views,
    unit,
    unlabelled_rows,
)
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import mlp_head
from jaxtl.plan import Method, Module


def simclr(
    tx: optax.GradientTransformation | Groups,
    *,
    augment: Augment,
    temperature: float = 0.5,
    projector: Module | None = None,
) -> Method:
    """The contrast of two views of each example with all other views of the batch.

    Args:
        temperature: divides the cosines; the paper has 0.1 to 0.5.
        projector: of features [n, width]; one hidden layer of 128 and 64 outputs if None.

    Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020.
    arXiv:2002.05709, Eq. 1.
    """
    projector = on_features(projector or mlp_head((128,), 64))

    def loss_fn(model, params, state, batch, rng, step):
        inputs = two_views(augment, jax.random.fold_in(rng, 1), unlabelled_rows(batch))
        features, state = encode(model, params, state, inputs, rng)
        projections = projector.apply(params[PROJECTOR], features)
        return view_contrast(projections, temperature), (state, {"spread": spread(projections)})

    return one_update(
        as_groups(tx),
        loss_fn,
        per_example=False,
        modules={PROJECTOR: projector},
        unweighted=True,
    )


def view_contrast(projections: jax.Array, temperature: float) -> jax.Array:
    """The mean cross-entropy of finding an example's other view among all other views (NT-Xent).

    Args:
        projections: [2 n, width] float, one view of each of n examples, then the other.
        temperature: > 0, divides the cosines.

    Returns:
        [] float; log(2 n - 1) where all projections are alike.
    """
    vectors = unit(projections)
    cosines = jnp.matmul(vectors, vectors.T, precision="highest")
    itself = jnp.eye(len(vectors), dtype=bool)
    logits = jnp.where(itself, -jnp.inf, cosines / temperature)
    partners = jnp.sum(vectors * other_views(vectors), -1) / temperature
    return jnp.mean(jax.nn.logsumexp(logits, 1) - partners)
