"""Spectral decoupling: logits are kept small, so that no feature starves the others."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.sides import Weight, at_step
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Batch, Method, Model


def spectral_decoupling(tx: optax.GradientTransformation | Groups, *, weight: Weight) -> Method:
    """The supervised objective + weight * the mean squared logit, of each example and its weight.

    The mean over the logits of an example, as in DomainBed, where the weight is 0.1; the paper's
    sum of the squares of one logit has lambda / 2 for it. Examples count as in the objective, those
    without a label not at all. It reads no domains, so that one source is enough.

    Args:
        weight: 0.1 in DomainBed (10^-5 to 10^-1).

    Raises:
        ValueError: no head has classes; others are left as they are.

    Pezeshki et al., "Gradient Starvation: A Learning Proclivity in Neural Networks", NeurIPS 2021.
    arXiv:2011.09468, Eq. 19.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        penalty = squared_logits(model, output["logits"], batch)
        loss = task + at_step(weight, step) * penalty
        return loss, (state, {"task_loss": task, "squared_logits": penalty})

    return one_update(as_groups(tx), loss_fn, per_example=True)


def squared_logits(model: Model, logits: dict[str, jax.Array], batch: Batch) -> jax.Array:
    """sum over heads with classes and domains of (1 / B) sum_i w_i mean_k z_ik^2, []."""
    names = [name for name in batch.labels if model.heads[name].integer]
    if not names:
        raise ValueError(
            "spectral_decoupling keeps the logits of classes small, and no head of the stage has "
            f"classes; its heads are {', '.join(batch.labels) or 'none'}"
        )
    total = jnp.zeros(())
    for name in names:
        weights = batch.weights[name]
        weights = weights.reshape(*weights.shape[:2], -1).mean(-1)
        total += jnp.sum(weights * jnp.mean(logits[name] ** 2, -1)) / len(weights)
    return total
