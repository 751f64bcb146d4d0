"""Sharpness-aware minimisation: descend with the gradient of the worst point nearby."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxtl.methods.transfer.fine_tuning import trained_paths
from jaxtl.paths import join, split
from jaxtl.plan import Method, Params, Update


def sam(method: Method, *, radius: float = 0.05) -> Method:
    """The method with each of its losses taken at theta + radius * g / |g|, g its gradient there.

    An update perturbs what it trains, nothing else; the perturbation is a constant of the gradient.
    What the loss hands on in the state, batch statistics among it, is that of theta itself, its
    metrics are those of the perturbed point. A step costs twice as much, and as g is that of the
    whole batch the batch is never cut.

    Args:
        method: its updates have scalar losses.
        radius: the paper's rho > 0.

    Raises:
        ValueError: an update combines the gradients of several losses.

    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR
    2021. arXiv:2010.01412, Eq. 2 and 3 for p = 2.
    """
    return _at_worst_point(method, radius, jnp.ones_like)


def asam(method: Method, *, radius: float = 0.5, offset: float = 0.01) -> Method:
    """`sam` with a radius relative to the size of each weight, so that rescaled layers are equal.

    The perturbation is radius * T^2 g / |T g| with T = |theta| + offset, element by element.

    Args:
        method, radius: as in `sam`.
        offset: the paper's eta >= 0, which lets weights of 0 move.

    Raises:
        ValueError: an update combines the gradients of several losses.

    Kwon et al., "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep
    Neural Networks", ICML 2021. arXiv:2102.11600.
    """
    return _at_worst_point(method, radius, lambda leaf: jnp.abs(leaf) + offset)


def _at_worst_point(
    method: Method, radius: float, size: Callable[[jax.Array], jax.Array]
) -> Method:
    """The method whose losses are taken at theta + radius * T^2 g / |T g|, T = size(theta)."""
    if any(update.rule is not None for update in method.updates):
        raise ValueError("sharpness-aware minimisation needs updates with one loss each.")

    def perturb(update: Update) -> Update:
        def loss_fn(model, params, state, batch, rng, step):
            paths = trained_paths(
                method.optimizers, params, names=update.optimizers, heads=batch.labels
            )
            trainable, frozen = split(params, paths.__contains__)

            def loss(trainable: Params):
                return update.loss(model, join(trainable, frozen), state, batch, rng, step)

            theta = jax.lax.stop_gradient(trainable)
            gradient, (new_state, _) = jax.grad(loss, has_aux=True)(theta)
            sizes = jax.tree.map(size, theta)
            scaled = jax.tree.map(jnp.multiply, sizes, gradient)
            norm = optax.tree.norm(scaled)
            # Where the gradient vanishes there is no direction, and no perturbation.
            length = radius / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)
            ascent = optax.tree.scale(length, jax.tree.map(jnp.multiply, sizes, scaled))
            value, (_, metrics) = loss(optax.tree.add(trainable, ascent))
            return value, (new_state, metrics)

        return dataclasses.replace(update, loss=loss_fn, per_example=False)

    return dataclasses.replace(method, updates=tuple(map(perturb, method.updates)))
