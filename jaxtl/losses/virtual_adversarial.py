"""Virtual adversarial training: predictions that do not change in the worst small direction."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax


def virtual_adversarial(
    predict: Callable[[jax.Array], jax.Array],
    rng: jax.Array,
    inputs: jax.Array,
    logits: jax.Array,
    weights: jax.Array | None = None,
    *,
    radius: float,
    steps: int = 1,
) -> jax.Array:
    """KL(p(x) || p(x + r)), r of length `radius` where that grows fastest; the mean over examples.

    The direction is found by power iteration from a random one, on the second derivative of the
    divergence at r = 0. The paper takes its products with a vector by finite differences of a size
    xi; here they are exact (a forward and a reverse derivative), so that there is no xi and nothing
    to lose in float32. The direction and p(x) are constants of the gradient.

    Args:
        predict: inputs [n, ...] -> logits [n, classes]; it must draw the same random numbers at
            each call.
        rng: key of the first direction.
        inputs: [n, ...] float.
        logits: [n, classes], predict(inputs) or other logits of the same examples.
        weights: [n] float >= 0, all ones if None; the weighted sum is divided by n.
        radius: length of r over all of an example's inputs; the paper's epsilon.
        steps: of the power iteration.

    Returns:
        [] float >= 0, up to rounding.

    Miyato et al., "Virtual Adversarial Training: A Regularization Method for Supervised and
    Semi-Supervised Learning", TPAMI 2018. arXiv:1704.03976, Eq. 5 and Section 3.3.
    """
    inputs, constant = jax.lax.stop_gradient((inputs, logits))
    p = jax.nn.softmax(constant)
    direction = _unit(jax.random.normal(rng, inputs.shape, inputs.dtype))
    for _ in range(steps):
        _, change = jax.jvp(predict, (inputs,), (direction,))
        # The divergence's second derivative with respect to the logits is diag(p) - p p'.
        bent = p * (change - jnp.sum(p * change, -1, keepdims=True))
        _, pull = jax.vjp(predict, inputs)
        direction = _unit(pull(bent.astype(change.dtype))[0])
    perturbed = predict(inputs + radius * jax.lax.stop_gradient(direction))
    losses = optax.losses.kl_divergence_with_log_targets(
        jax.nn.log_softmax(perturbed), jax.nn.log_softmax(constant)
    )
    return jnp.mean(losses if weights is None else jnp.where(weights > 0, weights * losses, 0))


def _unit(vectors: jax.Array) -> jax.Array:
    """[n, ...], each example of length 1; zeros stay zeros."""
    # By the largest number first: squares of what a sure model gives back underflow.
    axes = tuple(range(1, vectors.ndim))
    largest = jnp.max(jnp.abs(vectors), axes, keepdims=True)
    vectors = vectors / jnp.where(largest > 0, largest, 1)
    length = jnp.sqrt(jnp.sum(vectors**2, axes, keepdims=True))
    return vectors / jnp.where(length > 0, length, 1)
