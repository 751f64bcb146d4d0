"""FixMatch: confident labels of weakly augmented inputs, learned on strong views of them."""

from collections.abc import Callable

import jax
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.extra_views import apply_beside
from jaxtl.methods.adapt.self_training import confident_cross_entropy
from jaxtl.methods.adapt.sides import head_of, target_rows
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.plan import Method, PyTree


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
        strong: (rng, inputs [n, ...] float) -> inputs; applied to the weak view of the targets.
        threshold: least probability of a label that is used; the mean is over all examples. 0.95
            in the paper.
        weight: the paper's lambda_u.

    Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence",
    NeurIPS 2020. arXiv:2001.07685, Eq. 3 and 4.
    """

    def loss_fn(model, params, state, batch, rng, step):
        head, views = (
            head_of(batch),
            strong(jax.random.fold_in(rng, 1), target_rows(batch.inputs, batch)),
        )
        weak, seen, state = apply_beside(model, params, state, batch, views, rng)
        task, _ = supervised(model.heads, weak["logits"], batch)
        logits, present = target_rows((weak["logits"][head], batch.present), batch)
        strong_logits = seen["logits"][head]
        pseudo_loss, share = confident_cross_entropy(strong_logits, logits, threshold, present)
        metrics = {"task_loss": task, "pseudo_loss": pseudo_loss, "pseudo_share": share}
        return task + weight * pseudo_loss, (state, metrics)

    return one_update(as_groups(tx), loss_fn, per_example=True)
