"""Tasks weighed by their noise, which is learned."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import task_losses
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method, PyTree, Weigh


def uncertainty_weighting(
    tx: optax.GradientTransformation | Groups,
    *,
    noise_tx: optax.GradientTransformation | None = None,
) -> Method:
    """sum_t exp(-s_t) L_t + s_t / 2 over the heads with labels; s_t = log sigma_t^2 is learned.

    L_t is the cross-entropy of a head of classes, and half of the squared error of one of numbers
    (Eq. 5 and 10; the temperature of the softmax approximated as there). The s_t start at 0 and are
    state of the update: they are no parameters, and no part of a gradient's norm. Logged are the
    weights exp(-s_t), in the order of the model's heads.

    Args:
        noise_tx: optax transformation of the s_t; `tx` if None.

    Raises:
        ValueError: `tx` is groups and there is no `noise_tx`.

    Kendall et al., "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
    Semantics", CVPR 2018. arXiv:1705.07115, Eq. 7 to 10.
    """
    groups = as_groups(tx)
    if noise_tx is None:
        if groups.keys() != {"all"}:
            raise ValueError("with groups, the noise needs an optax transformation of its own")
        noise_tx = groups["all"][1]

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        losses, metrics = task_losses(model.heads, output["logits"], batch)
        tasks = [head for name, head in model.heads.items() if name in batch.labels]
        factors = jnp.array([1.0 if head.integer else 0.5 for head in tasks])
        return losses * factors, (state, metrics)

    def init(trainable: PyTree, losses: jax.Array) -> PyTree:
        start = jnp.zeros_like(losses)
        return {"log_variance": start, "noise": noise_tx.init(start)}

    def weigh(losses: jax.Array, state: PyTree, rng: jax.Array):
        before = state["log_variance"]
        weights = jnp.exp(-before)
        slopes = 0.5 - weights * losses
        updates, noise = noise_tx.update(slopes, state["noise"], before)
        after = {"log_variance": optax.apply_updates(before, updates), "noise": noise}
        return weights, after, {f"weight_{i}": weight for i, weight in enumerate(weights)}

    return one_update(groups, loss_fn, per_example=True, weigh=Weigh(init, weigh))
