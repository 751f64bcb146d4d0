"""Adversarial discriminative adaptation: a target encoder whose features pass for the source's."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.methods.adapt.adversary import domain_loss, with_opponent
from jaxtl.methods.adapt.dann import DISCRIMINATOR
from jaxtl.methods.adapt.sides import as_rows, at_domains, targets_of
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
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
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
    groups, encoder = with_opponent(
        tx, DISCRIMINATOR, (f"{DISCRIMINATOR}/.*",), discriminator_tx, frozen=("heads/.*",)
    )

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        moving = trained_paths(groups, params, names=encoder)
        return {"encoder": split(params, moving.__contains__)[0], "statistics": statistics}

    def target_features(model, params, state, batch, rng):
        inputs = at_domains(batch.inputs, sides_of(batch.roles)[1])
        output, state = apply_flat(model, params, state, inputs, rng=rng, train=True)
        return _rows(output["features"]), state

    def discriminator_loss(model, params, state, batch, rng, step):
        sides = sides_of(batch.roles)
        moved, _ = target_features(model, params, state, batch, rng)
        kept = state.method
        rest = split(params, flatten(kept["encoder"]).__contains__)[1]
        inputs = at_domains(batch.inputs, sides[0])
        start = State(kept["statistics"])
        output, _ = apply_flat(model, join(kept["encoder"], rest), start, inputs)
        fixed = _rows(output["features"])
        truth = jnp.concatenate([jnp.zeros(len(fixed), int), jnp.ones(len(moved), int)])
        balance = len(truth) / (2 * jnp.where(truth == 0, len(fixed), len(moved)))
        present = [as_rows(at_domains(batch.present, side)) for side in sides]
        loss, metrics = domain_loss(
            network,
            params[DISCRIMINATOR],
            jnp.concatenate([fixed, moved]),
            truth,
            balance * jnp.concatenate(present),
        )
        return loss, (state, metrics)

    def encoder_loss(model, params, state, batch, rng, step):
        moved, state = target_features(model, params, state, batch, rng)
        inverted = jnp.zeros(len(moved), int)
        present = targets_of(batch.present, batch)
        loss, _ = domain_loss(network, params[DISCRIMINATOR], moved, inverted, present)
        return loss, (state, {"encoder_loss": loss})

    updates = (
        Update(discriminator_loss, (DISCRIMINATOR,), per_example=True),
        Update(encoder_loss, encoder, per_example=True),
    )
    return Method(groups, updates, modules={DISCRIMINATOR: network}, state=start)


def _rows(features: jax.Array) -> jax.Array:
    """[batch, domains, ...] -> [batch * domains, features]."""
    return features.reshape(features.shape[0] * features.shape[1], -1)
