"""Adversarial discriminative adaptation: a target encoder whose features pass for the source's."""

import jax.numpy as jnp
import optax

from jaxtl.methods.adapt.adversary import DISCRIMINATOR, domain_loss, with_opponent
from jaxtl.methods.adapt.sides import as_rows, at_domains, flat_features
from jaxtl.methods.transfer.fine_tuning import Groups, trained_paths
from jaxtl.models import apply_flat, mlp_head
from jaxtl.paths import flatten, join, split
from jaxtl.plan import Method, Model, Module, Params, PyTree, StageShape, State, Statistics, Update
from jaxtl.plan.batch import sides_of


def adda(
    tx: optax.GradientTransformation | Groups,
    *,
    discriminator_tx: optax.GradientTransformation | None = None,
    discriminator: Module | None = None,
) -> Method:
    """Only the encoder trains, so that a discriminator takes target features for source features.

    A stage after one that trained on the source. The encoder as it was loaded, a copy in the
    method's state, makes the source features; what trains starts from it and makes those of the
    target; the heads are frozen. Each training step the discriminator makes a step to tell them
    apart, then the encoder one on the inverted labels. The target is predicted, and evaluated,
    with the new encoder: the source is forgotten as it needs be. No label is read.

    Args:
        discriminator_tx: of the discriminator; `tx` if None.
        discriminator: features [..., features] -> [..., 2]; by default two hidden layers of 500,
            the paper's for digits.

    Raises:
        ValueError: `tx` is groups and there is no `discriminator_tx`; when it runs, there is no
            source or no target.

    Tzeng et al., "Adversarial Discriminative Domain Adaptation", CVPR 2017. arXiv:1702.05464,
    Eq. 9.
    """
    network = discriminator or mlp_head((500, 500), 2)
    patterns = (f"{DISCRIMINATOR}/.*",)
    groups, encoder = with_opponent(
        tx, DISCRIMINATOR, patterns, discriminator_tx, frozen=("heads/.*",)
    )

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        trainable = trained_paths(groups, params, names=encoder)
        return {"encoder": split(params, trainable.__contains__)[0], "statistics": statistics}

    def features(model, params, state, inputs, **training):
        """(rows [n, features], state) of inputs [batch, domains, ...]."""
        output, state = apply_flat(model, params, state, inputs, **training)
        return as_rows(flat_features(output)), state

    def discriminator_loss(model, params, state, batch, rng, step):
        sides = sides_of(batch.roles)
        source, target = (at_domains(batch.inputs, side) for side in sides)
        target_features, _ = features(model, params, state, target, rng=rng, train=True)
        loaded = state.method
        rest = split(params, flatten(loaded["encoder"]).__contains__)[1]
        loaded_params = join(loaded["encoder"], rest)
        source_features, _ = features(model, loaded_params, State(loaded["statistics"]), source)
        sizes = len(source_features), len(target_features)
        is_target = jnp.concatenate([jnp.zeros(sizes[0], int), jnp.ones(sizes[1], int)])
        # Both sides count alike, whatever their numbers of domains.
        balance = len(is_target) / (2 * jnp.where(is_target == 0, *sizes))
        present = jnp.concatenate([as_rows(at_domains(batch.present, side)) for side in sides])
        loss, metrics = domain_loss(
            network,
            params[DISCRIMINATOR],
            jnp.concatenate([source_features, target_features]),
            is_target,
            balance * present,
        )
        return loss, (state, metrics)

    def encoder_loss(model, params, state, batch, rng, step):
        targets = sides_of(batch.roles)[1]
        inputs, present = at_domains((batch.inputs, batch.present), targets)
        rows, state = features(model, params, state, inputs, rng=rng, train=True)
        inverted = jnp.zeros(len(rows), int)
        loss, _ = domain_loss(network, params[DISCRIMINATOR], rows, inverted, as_rows(present))
        return loss, (state, {"encoder_loss": loss})

    updates = (
        Update(discriminator_loss, (DISCRIMINATOR,), per_example=True),
        Update(encoder_loss, encoder, per_example=True),
    )
    return Method(groups, updates, modules={DISCRIMINATOR: network}, state=start)
