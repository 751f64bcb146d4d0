"""FixMatch: confident labels of weakly augmented inputs, learned on strong views of them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.self_training import confident_cross_entropy
from jaxtl.methods.adapt.sides import as_rows, head_of, target_rows
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
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
        size, domains = batch.present.shape
        views = strong(jax.random.fold_in(rng, 1), target_rows(batch.inputs, batch))
        views = jax.tree.map(lambda leaf: leaf.reshape(size, -1, *leaf.shape[1:]), views)
        inputs = jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), batch.inputs, views)
        output, state = apply_flat(model, params, state, inputs, rng=rng, train=True)
        weak = {head: logits[:, :domains] for head, logits in output["logits"].items()}
        task, _ = supervised(model.heads, weak, batch)
        head = head_of(batch)
        weak_logits, present = target_rows((weak[head], batch.present), batch)
        strong_logits = as_rows(output["logits"][head][:, domains:])
        pseudo_loss, share = confident_cross_entropy(strong_logits, weak_logits, threshold, present)
        metrics = {"task_loss": task, "pseudo_loss": pseudo_loss, "pseudo_share": share}
        return task + weight * pseudo_loss, (state, metrics)

    return one_update(as_groups(tx), loss_fn, per_example=True)
