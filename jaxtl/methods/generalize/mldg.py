"""Meta-learning for domain generalisation: a step on some domains must help in the others."""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import AT_LEAST_1, POSITIVE, checked
from jaxtl.methods.adapt.sides import Weight, at_step
from jaxtl.methods.generalize.risks import check_sources, example_losses, mean_risks
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update, trained_paths
from jaxtl.models import apply_flat
from jaxtl.paths import join, split
from jaxtl.plan import Batch, LossFn, Method, Params, State


@checked
def mldg(
    tx: optax.GradientTransformation | Groups,
    *,
    inner_rate: Annotated[float, POSITIVE],
    weight: Weight = 1.0,
    test_domains: Annotated[int, AT_LEAST_1] = 1,
) -> Method:
    """F(theta) + weight * G(theta - inner_rate * F'(theta)): domains of the step, and the others.

    The domains are parted anew in every step: G is the mean risk of `test_domains` of them, F that
    of the others, both by the domains' weights; means as in the paper, whatever the weights sum to,
    so that these do not change the inner step. The gradient goes through that step, second
    derivatives included. Batch statistics follow both.

    Args:
        inner_rate: the paper's alpha, 5e-4 there, of one step of gradient descent.
        weight: the paper's beta.
        test_domains: fewer than the stage has domains; 1 in the paper, of 3 sources, 2 in
            DomainBed.

    Raises:
        ValueError: the domains are not several labelled sources, or all would be tested.

    Li et al., "Learning to Generalize: Meta-Learning for Domain Generalization", AAAI 2018.
    arXiv:1710.03463, Algorithm 1.
    """
    groups = as_groups(tx)
    loss_fn = _loss(groups, inner_rate, weight, test_domains, first_order=False)
    return one_update(groups, loss_fn, per_example=False)


@checked
def mldg_first_order(
    tx: optax.GradientTransformation | Groups,
    *,
    inner_rate: Annotated[float, POSITIVE],
    weight: Weight = 1.0,
    test_domains: Annotated[int, AT_LEAST_1] = 1,
) -> Method:
    """`mldg` without second derivatives: F' in the inner step is a constant of the gradient.

    DomainBed's variant, with one step of gradient descent inside where that has Adam.

    Args:
        inner_rate, weight, test_domains: as in `mldg`.
    """
    groups = as_groups(tx)
    loss_fn = _loss(groups, inner_rate, weight, test_domains, first_order=True)
    return one_update(groups, loss_fn, per_example=False)


def _loss(
    groups: Groups, inner_rate: float, weight: Weight, test_domains: int, *, first_order: bool
) -> LossFn:
    def loss_fn(model, params, state, batch, rng, step):
        check_sources(batch)
        domains = len(batch.roles)
        if test_domains >= domains:
            raise ValueError(
                f"test_domains={test_domains} of {domains} domains leaves none for the inner step; "
                f"expected 1 to {domains - 1}"
            )
        order_key, train_key, test_key = jax.random.split(rng, 3)
        order = jax.random.permutation(order_key, domains)
        fast, slow = split(params, trained_paths(groups, params, heads=batch.labels).__contains__)

        def mean_loss(fast: Params, state: State, positions: jax.Array, key: jax.Array):
            part = domains_at(batch, positions)
            output, state = apply_flat(
                model, join(fast, slow), state, part.inputs, rng=key, train=True
            )
            risks = mean_risks(*example_losses(model.heads, output["logits"], part))
            return risks.mean, state

        (train_loss, state), slope = jax.value_and_grad(mean_loss, has_aux=True)(
            fast, state, order[test_domains:], train_key
        )
        if first_order:
            slope = jax.lax.stop_gradient(slope)
        moved = jax.tree.map(lambda leaf, change: leaf - inner_rate * change, fast, slope)
        test_loss, state = mean_loss(moved, state, order[:test_domains], test_key)
        loss = train_loss + at_step(weight, step) * test_loss
        return loss, (state, {"train_loss": train_loss, "test_loss": test_loss})

    return loss_fn


def domains_at(batch: Batch, positions: jax.Array) -> Batch:
    """Some domains of a batch of sources, in this order.

    Args:
        positions: [n] int, which may be computed.
    """
    part = jax.tree.map(lambda leaf: jnp.take(leaf, positions, axis=1), batch)
    return part.replace(roles=("source",) * len(positions))
