"""SCARF: a row of a table is recognised though some of its values are those of other rows."""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import SHARE, checked
from jaxtl.methods.pretrain.simclr import view_contrast
from jaxtl.methods.pretrain.views import PROJECTOR, encode, on_features, spread, unlabelled_rows
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import mlp_head
from jaxtl.plan import Method, Module


def scarf(
    tx: optax.GradientTransformation | Groups,
    *,
    share: float = 0.6,
    temperature: float = 1.0,
    projector: Module | None = None,
) -> Method:
    """SimCLR's contrast of each row as it is with itself under `swap_values`.

    The paper draws from the training set's marginals; here a value comes from another row of the
    batch, which has the same distribution.

    Args:
        share: of the values that are replaced.
        temperature: divides the cosines.
        projector: of features [n, width]; one hidden layer of 128 and 64 outputs if None.

    Bahri et al., "SCARF: Self-Supervised Contrastive Learning using Random Feature Corruption",
    ICLR 2022. arXiv:2106.15147, Algorithm 1.
    """
    projector = on_features(projector or mlp_head((128,), 64))
    corrupt = swap_values(share)

    def loss_fn(model, params, state, batch, rng, step):
        inputs = unlabelled_rows(batch)
        views = inputs, corrupt(jax.random.fold_in(rng, 1), inputs)
        inputs = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *views)
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


@checked
def swap_values(share: Annotated[float, SHARE]) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(rng, rows [n, ...]) -> rows, some values replaced by the same value of a random row.

    Each value by itself, so that what is put in has the distribution of its column.

    Args:
        share: probability that a value is replaced.
    """

    def apply(rng: jax.Array, rows: jax.Array) -> jax.Array:
        chance, order = jax.random.split(rng)
        drawn = jax.random.permutation(order, rows, axis=0, independent=True)
        return jnp.where(jax.random.bernoulli(chance, share, rows.shape), drawn, rows)

    return apply
