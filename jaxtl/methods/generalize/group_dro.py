"""Distributionally robust optimisation over groups: the domains that do worst weigh most."""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import NOT_NEGATIVE, checked
from jaxtl.methods.generalize.risks import check_sources, example_losses
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method, PyTree, Weigh


@checked
def group_dro(
    tx: optax.GradientTransformation | Groups, *, rate: Annotated[float, NOT_NEGATIVE] = 0.01
) -> Method:
    """sum_d q_d L_d with q on the simplex, which moves towards the domains of the largest losses.

    L_d is the mean of the weighted losses of the domain's labels, over the mean weight of all: a
    domain of twice the weight of the others counts as twice as bad, one weight of all domains
    changes nothing, and neither do labels that are missing. The q are logged as `weight_<domain>`.

    Args:
        rate: eta >= 0 of `worst_domains`.

    Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020.
    arXiv:1911.08731, Algorithm 1 with examples of all groups in a batch, as in the authors' code.
    """

    def loss_fn(model, params, state, batch, rng, step):
        check_sources(batch)
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        losses, weights = example_losses(model.heads, output["logits"], batch)
        labelled, total = jnp.sum(weights > 0, 1), weights.sum()
        losses = jnp.sum(losses.sum(1) / jnp.maximum(labelled, 1), 0)
        losses *= labelled.sum() / jnp.where(total > 0, total, 1)
        metrics = {f"domain_{number}_loss": loss for number, loss in enumerate(losses)}
        return losses, (state, metrics)

    # A mean over the labels that a batch happens to have is not the mean of those of its parts.
    return one_update(as_groups(tx), loss_fn, per_example=False, weigh=worst_domains(rate))


@checked
def worst_domains(rate: Annotated[float, NOT_NEGATIVE] = 0.01) -> Weigh:
    """q_i <- q_i exp(rate L_i) / sum_j q_j exp(rate L_j), from equal ones, before each step.

    A rule for any losses: `multitask.joint(tx, worst_domains())` is for the worst task.

    Args:
        rate: eta >= 0; 0 keeps the weights equal.
    """

    def init(trainable: PyTree, losses: jax.Array) -> PyTree:
        return {"log_weights": jnp.full_like(losses, -jnp.log(len(losses)))}

    def weigh(losses: jax.Array, state: PyTree, rng: jax.Array):
        log_weights = jax.nn.log_softmax(state["log_weights"] + rate * losses)
        weights = jnp.exp(log_weights)
        logged = {f"weight_{i}": weight for i, weight in enumerate(weights)}
        return weights, {"log_weights": log_weights}, logged

    return Weigh(init, weigh)
