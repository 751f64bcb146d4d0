"""Conditional domain-adversarial training: the domain classifier sees the predictions too."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.methods.adapt.adversary import both, for_domains, reversed_domain_loss
from jaxtl.methods.adapt.dann import DISCRIMINATOR
from jaxtl.methods.adapt.sides import Side, Term, Weight, adapted, at_step, classes_of
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.plan import Method, Module, Params, StageShape


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
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        reversal: step -> coefficient of the reversal >= 0, such as `losses.reversal_schedule`, or
            a constant.
        weight: factor of the domain classifier's loss, or step -> factor.
        random_features: width d of random projections whose product, / sqrt(d), stands in for the
            outer product (in the paper where features * classes > 4096); their normal matrices
            are constants, the same for all seeds. None for the outer product.
        discriminator: [..., features * classes, or random_features] -> [..., domains]; by default
            two hidden layers of 1024, without the dropout of the authors' code.

    Long et al., "Conditional Adversarial Domain Adaptation", NeurIPS 2018. arXiv:1705.10667.
    """
    network = _on_products(discriminator, random_features)
    term = _term(network, reversal, weight, random_features, lambda side: side.present)
    return adapted(tx, term, modules={DISCRIMINATOR: network}, per_example=True)


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
        tx, reversal, weight, random_features, discriminator: as in `cdan`.
    """
    network = _on_products(discriminator, random_features)
    term = _term(network, reversal, weight, random_features, certain)
    return adapted(tx, term, modules={DISCRIMINATOR: network})


def certainty(logits: jax.Array, present: jax.Array | None = None) -> jax.Array:
    """1 + exp(-entropy) of predictions [n, classes], divided by the mean: [n], constants.

    The mean is one with weights `present` [n], if they are given.
    """
    log_p = jax.nn.log_softmax(jax.lax.stop_gradient(logits))
    weights = 1 + jnp.exp(jnp.sum(jnp.exp(log_p) * log_p, -1))
    if present is None:
        return weights / weights.mean()
    return weights * present.sum() / jnp.maximum(jnp.sum(present * weights), 1e-12)


def certain(side: Side) -> jax.Array:
    """The weights [n] of `cdan_e` on one side."""
    return side.present * certainty(side.logits, side.present)


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


def _on_products(discriminator: Module | None, random_features: int | None) -> Module:
    """The domain classifier, initialised for what `conditioned` makes of a model's features."""
    network = for_domains(discriminator, (1024, 1024))

    def init(rng: jax.Array, output: dict, shape: StageShape) -> Params:
        flat = output["features"].reshape(len(output["features"]), -1)
        classes = classes_of(shape)
        even = jnp.full((len(flat), classes), 1 / classes)
        products = conditioned(flat, even, random_features)
        return network.init(rng, {**output, "features": products}, shape)

    return Module(init, network.apply)


def _term(
    network: Module,
    reversal: Weight,
    weight: Weight,
    random_features: int | None,
    weigh: Callable[[Side], jax.Array],
) -> Term:
    def term(params: Params, source: Side, target: Side, rng: jax.Array, step: jax.Array):
        del rng
        logits = both(source, target, "logits")
        probabilities = jax.nn.softmax(jax.lax.stop_gradient(logits))
        inputs = conditioned(both(source, target, "features"), probabilities, random_features)
        loss, metrics = reversed_domain_loss(
            network,
            params[DISCRIMINATOR],
            inputs,
            both(source, target, "domains"),
            at_step(reversal, step),
            jnp.concatenate([weigh(source), weigh(target)]),
        )
        return at_step(weight, step) * loss, metrics

    return term
