"""Conditional domain-adversarial training: the domain classifier sees the predictions too."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.adversary import (
    DISCRIMINATOR,
    domain_classifier,
    domain_confusion_loss,
    domain_index,
)
from jaxtl.methods.adapt.sides import (
    Weight,
    at_step,
    classes_of,
    flat_features,
    head_of,
    rows_by_side,
    sources_first,
)
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import LossFn, Method, Module, Params, StageShape


def cdan(
    tx: optax.GradientTransformation | Groups,
    *,
    reversal: Weight,
    weight: Weight = 1.0,
    random_features: int | None = None,
    discriminator: Module | None = None,
) -> Method:
    """`dann` whose domain classifier sees the outer product of features and probabilities.

    As in the authors' code the probabilities are constants of the gradient.

    Args:
        reversal: as in `dann`.
        random_features: width d of random projections whose product, / sqrt(d), stands in for the
            outer product (in the paper where features * classes > 4096); their normal matrices
            are constants, the same for all seeds. None for the outer product.
        discriminator: [..., features * classes, or random_features] -> [..., domains]; by default
            two hidden layers of 1024, without the dropout of the authors' code.

    Long et al., "Conditional Adversarial Domain Adaptation", NeurIPS 2018. arXiv:1705.10667.
    """
    network = on_products(discriminator, random_features)
    loss_fn = _loss(network, reversal, weight, random_features, lambda logits, present: present)
    modules = {DISCRIMINATOR: network}
    return one_update(as_groups(tx), loss_fn, per_example=True, modules=modules)


def cdan_e(
    tx: optax.GradientTransformation | Groups,
    *,
    reversal: Weight,
    weight: Weight = 1.0,
    random_features: int | None = None,
    discriminator: Module | None = None,
) -> Method:
    """`cdan` in which examples with sure predictions weigh more: by 1 + exp(-entropy).

    As in the authors' code the weights have mean 1 over the source side and over the target side;
    an example's own weight comes on top. They are constants of the gradient.

    Args:
        reversal, random_features, discriminator: as in `cdan`.
    """
    network = on_products(discriminator, random_features)
    loss_fn = _loss(network, reversal, weight, random_features, certainty)
    modules = {DISCRIMINATOR: network}
    return one_update(as_groups(tx), loss_fn, per_example=False, modules=modules)


def _loss(
    network: Module,
    reversal: Weight,
    weight: Weight,
    random_features: int | None,
    example_weights: Callable[[jax.Array, jax.Array], jax.Array],
) -> LossFn:
    """What both minimise; `example_weights` are those of one side, of its logits and `present`."""

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        logits = output["logits"][head_of(batch)]
        weights = [example_weights(*rows) for rows in rows_by_side((logits, batch.present), batch)]
        probabilities = jax.nn.softmax(jax.lax.stop_gradient(sources_first(logits, batch)))
        features = sources_first(flat_features(output), batch)
        confusion, metrics = domain_confusion_loss(
            network,
            params[DISCRIMINATOR],
            conditioned(features, probabilities, random_features),
            sources_first(domain_index(batch), batch),
            jnp.concatenate(weights),
            at_step(reversal, step),
        )
        loss = task + at_step(weight, step) * confusion
        return loss, (state, {"task_loss": task, **metrics})

    return loss_fn


def certainty(logits: jax.Array, present: jax.Array) -> jax.Array:
    """present * (1 + exp(-entropy) of predictions, over its mean): [n], constants.

    Args:
        logits: [n, classes] float.
        present: [n] float >= 0, weights of the mean too.
    """
    log_p = jax.nn.log_softmax(jax.lax.stop_gradient(logits))
    weights = 1 + jnp.exp(jnp.sum(jnp.exp(log_p) * log_p, -1))
    return present * (weights * present.sum() / jnp.maximum(jnp.sum(present * weights), 1e-12))


def conditioned(
    features: jax.Array, probabilities: jax.Array, random_features: int | None
) -> jax.Array:
    """Outer products [n, features * classes], or their random stand-in [n, random_features].

    Args:
        features: [n, features] float.
        probabilities: [n, classes] float.
        random_features: as in `cdan`.
    """
    if random_features is None:
        return (features[:, :, None] * probabilities[:, None, :]).reshape(len(features), -1)
    rng = np.random.default_rng(0)
    projected = [
        part @ rng.normal(size=(part.shape[-1], random_features)).astype(np.float32)
        for part in (features, probabilities)
    ]
    return projected[0] * projected[1] / np.sqrt(random_features).astype(np.float32)


def on_products(discriminator: Module | None, random_features: int | None) -> Module:
    """The domain classifier, initialised for what `conditioned` makes of a model's features."""
    network = domain_classifier(discriminator, (1024, 1024))

    def init(rng: jax.Array, output: dict, shape: StageShape) -> Params:
        flat = output["features"].reshape(len(output["features"]), -1)
        classes = classes_of(shape)
        even = jnp.full((len(flat), classes), 1 / classes)
        products = conditioned(flat, even, random_features)
        return network.init(rng, {**output, "features": products}, shape)

    return Module(init, network.apply)
