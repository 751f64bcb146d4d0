"""CausIRL: features of two random mixtures of the domains have one distribution."""

import functools

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import coral, mmd, supervised
from jaxtl.losses.kernels import MEAN_BANDWIDTHS, Bandwidths
from jaxtl.methods.adapt.sides import Weight, as_rows, at_step, flat_features
from jaxtl.methods.generalize.pairs import Distance
from jaxtl.methods.generalize.risks import check_sources
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


def caus_irl_coral(tx: optax.GradientTransformation | Groups, *, weight: Weight = 1.0) -> Method:
    """The supervised objective + weight * `losses.coral` of two mixtures of the domains.

    In every step each domain gives a part of its examples, whose size is drawn for it, to one
    mixture and the rest to the other: one distance, where `coral` has one for each pair of domains.
    Mixtures are of features before the heads.

    Args:
        weight: 1 in DomainBed, whose distance is 4 times as much, with that of means added.

    Chevalley et al., "Invariant Causal Mechanisms through Distribution Matching", 2022.
    arXiv:2206.11646.
    """
    return _method(tx, coral, weight)


def caus_irl_mmd(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight = 1.0,
    bandwidths: Bandwidths = MEAN_BANDWIDTHS,
    unbiased: bool = False,
) -> Method:
    """`caus_irl_coral` with `losses.mmd` for the distance.

    Args:
        bandwidths, unbiased: as in `losses.mmd`.
    """
    return _method(tx, functools.partial(mmd, bandwidths=bandwidths, unbiased=unbiased), weight)


def _method(
    tx: optax.GradientTransformation | Groups, distance: Distance, weight: Weight
) -> Method:
    def loss_fn(model, params, state, batch, rng, step):
        check_sources(batch)
        key, rng = jax.random.split(rng)
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        size, domains = batch.present.shape
        parts = jax.random.randint(key, (1, domains), 0, size)
        in_first = jnp.arange(size)[:, None] < parts
        mixtures = (jnp.where(chosen, batch.present, 0) for chosen in (in_first, ~in_first))
        features = as_rows(flat_features(output))
        gap = distance(features, features, *as_rows(tuple(mixtures)))
        task, _ = supervised(model.heads, output["logits"], batch)
        loss = task + at_step(weight, step) * gap
        return loss, (state, {"task_loss": task, "mixture_distance": gap})

    return one_update(as_groups(tx), loss_fn, per_example=False)
