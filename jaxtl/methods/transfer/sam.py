"""Sharpness-aware minimisation: descend with the gradient of the worst point nearby."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxtl.methods.transfer.fine_tuning import trained_paths
from jaxtl.paths import join, split
from jaxtl.plan import Method, Params, Update

Ascent = Callable[[Params, Params], Params]


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

    def ascent(params: Params, gradient: Params) -> Params:
        return _of_length(gradient, radius, optax.tree.norm(gradient))

    return _ascending(method, ascent)


def asam(method: Method, *, radius: float = 0.5, offset: float = 0.01) -> Method:
    """`sam` with a radius relative to the size of each weight, so that rescaled layers are equal.

    The perturbation is radius * T^2 g / |T g| with T = |theta| + offset, element by element.

    Args:
        method: its updates have scalar losses.
        radius: the paper's rho > 0.
        offset: the paper's eta >= 0, which lets weights of 0 move.

    Raises:
        ValueError: an update combines the gradients of several losses.

    Kwon et al., "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep
    Neural Networks", ICML 2021. arXiv:2102.11600.
    """

    def ascent(params: Params, gradient: Params) -> Params:
        sizes = jax.tree.map(lambda leaf: jnp.abs(leaf) + offset, params)
        scaled = jax.tree.map(jnp.multiply, sizes, gradient)
        twice = jax.tree.map(jnp.multiply, sizes, scaled)
        return _of_length(twice, radius, optax.tree.norm(scaled))

    return _ascending(method, ascent)


def _of_length(direction: Params, radius: float, norm: jax.Array) -> Params:
    # Where the gradient vanishes there is no direction, and no perturbation.
    scale = radius / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)
    return optax.tree.scale(scale, direction)


def _ascending(method: Method, ascent: Ascent) -> Method:
    """The method whose losses are taken at parameters + ascent(parameters, gradient)."""
    if any(update.rule is not None for update in method.updates):
        raise ValueError("sharpness-aware minimisation needs updates with one loss each.")

    def perturbed(update: Update) -> Update:
        def loss_fn(model, params, state, batch, rng, step):
            trained = trained_paths(
                method.optimizers, params, names=update.optimizers, heads=batch.labels
            )
            moving, resting = split(params, lambda path: path in trained)

            def loss(moving: Params):
                return update.loss(model, join(moving, resting), state, batch, rng, step)

            here = jax.lax.stop_gradient(moving)
            gradient, (new_state, _) = jax.grad(loss, has_aux=True)(here)
            there = optax.tree.add(moving, ascent(here, gradient))
            value, (_, metrics) = loss(there)
            return value, (new_state, metrics)

        return dataclasses.replace(update, loss=loss_fn, per_example=False)

    return dataclasses.replace(method, updates=tuple(map(perturbed, method.updates)))
