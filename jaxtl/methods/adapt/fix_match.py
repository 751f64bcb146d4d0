"""FixMatch: confident labels of weakly augmented inputs, learned on strong views of them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.pseudo_labels import confident_cross_entropy
from jaxtl.methods.adapt.sides import split_sides, targets_of
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Batch, Method, Model, Params, PyTree, State


def fix_match(
    tx: optax.GradientTransformation | Groups,
    *,
    strong: Callable[[jax.Array, PyTree], PyTree],
    threshold: float = 0.9,
    weight: float = 1.0,
) -> Method:
    """The supervised objective + weight * cross-entropy of strong views with labels of weak ones.

    Weak views are the inputs of the batch, as the domains' own `augment` leaves them. The paper is
    about one domain with few labels; here the source is labelled and the target is not. All views
    pass the network together, as in the paper's code, so that BatchNorm sees all of them. There
    the model that is evaluated is an average of what trains, decay 0.999: `Method.ema`.

    Args:
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        strong: (rng, inputs [n, ...] float) -> inputs; applied to the weak view of the targets.
        threshold: least probability of a label that is used; the mean is over all examples. 0.95
            in the paper.
        weight: factor of the strong views' loss, the paper's lambda_u.

    Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence",
    NeurIPS 2020. arXiv:2001.07685, Eq. 3 and 4.
    """
    groups = as_groups(tx)

    def loss_fn(model: Model, params: Params, state: State, batch: Batch, rng, step: jax.Array):
        weak = batch.inputs
        size, domains = jax.tree.leaves(weak)[0].shape[:2]
        views = strong(jax.random.fold_in(rng, 1), targets_of(weak, batch))
        both = jax.tree.map(
            lambda one, view: jnp.concatenate([one, view.reshape(size, -1, *one.shape[2:])], 1),
            weak,
            views,
        )
        output, state = apply_flat(model, params, state, both, rng=rng, train=True)
        first = jax.tree.map(lambda leaf: leaf[:, :domains], output)
        task, _ = supervised(model.heads, first["logits"], batch)
        _, target = split_sides(first, batch)
        (head,) = batch.labels
        logits = output["logits"][head][:, domains:].reshape(target.logits.shape)
        loss, share = confident_cross_entropy(logits, target.logits, threshold, target.present)
        metrics = {"task_loss": task, "pseudo_loss": loss, "pseudo_share": share}
        return task + weight * loss, (state, metrics)

    return one_update(groups, loss_fn, per_example=True)
