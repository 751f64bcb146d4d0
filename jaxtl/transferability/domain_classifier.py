"""Can a linear classifier tell two domains apart, and what does it say about each example?"""

import jax
import jax.numpy as jnp

NEWTON_STEPS = 20


def domain_logits(
    source: jax.Array,
    target: jax.Array,
    examples: jax.Array,
    *,
    penalty: float = 1e-2,
) -> jax.Array:
    """Log odds that examples are from the target, by logistic regression between the domains.

    Both domains weigh the same, whatever their sizes. Features are standardised by the pooled
    training examples; what is constant there counts for nothing.

    Args:
        source: [n_source, features] float.
        target: [n_target, features] float.
        examples: [n, features], those to be judged.
        penalty: of half the squared norm of the weights, beside the mean loss; not of the bias.

    Returns:
        [n] float32.
    """
    pooled = jnp.concatenate([source, target]).astype(jnp.float32)
    shift, variance = pooled.mean(0, keepdims=True), pooled.var(0, keepdims=True)
    # A constant has no slope either, as it would have through a root of 0.
    scale = jnp.where(variance == 0, jnp.inf, jnp.sqrt(jnp.where(variance == 0, 1, variance)))

    def design(features: jax.Array) -> jax.Array:
        standard = (features.astype(jnp.float32) - shift) / scale
        return jnp.pad(standard, ((0, 0), (0, 1)), constant_values=1.0)

    inputs = design(pooled)
    is_target = jnp.arange(len(pooled)) >= len(source)
    share = jnp.where(is_target, 0.5 / len(target), 0.5 / len(source))
    ridge = jnp.full(inputs.shape[1], penalty).at[-1].set(1e-6)

    def newton(weights: jax.Array, _: None):
        p = jax.nn.sigmoid(inputs @ weights)
        gradient = inputs.T @ (share * (p - is_target)) + ridge * weights
        spread = (share * p * (1 - p))[:, None]
        curvature = inputs.T @ (spread * inputs) + jnp.diag(ridge)
        return weights - jax.scipy.linalg.solve(curvature, gradient, assume_a="pos"), None

    weights, _ = jax.lax.scan(newton, jnp.zeros(inputs.shape[1]), length=NEWTON_STEPS)
    return design(examples) @ weights


def proxy_a_distance(source: jax.Array, target: jax.Array) -> jax.Array:
    """2 (1 - 2 error) of a linear domain classifier: 0 indistinguishable, 2 separable.

    The classifier learns from every other example and is tested on the rest, both domains weighing
    the same; below 0 by chance.

    Args:
        source: [n_source, features] float, at least two examples in random order.
        target: [n_target, features], likewise.

    Returns:
        [] float32 in [-2, 2]; NaN where a feature is not finite.

    Raises:
        ValueError: a domain has fewer than two examples, so that none is left for the test.

    Ben-David et al., "Analysis of Representations for Domain Adaptation", NeurIPS 2006; by a linear
    classifier, and with this name, Ganin et al., 2016, arXiv:1505.07818, Eq. 3.
    """
    if min(len(source), len(target)) < 2:
        raise ValueError(
            f"two examples or more of each domain expected, got {len(source)} and {len(target)}"
        )
    held_out = jnp.concatenate([source[1::2], target[1::2]])
    logits = domain_logits(source[::2], target[::2], held_out)
    count = len(source[1::2])
    missed = (logits[:count] >= 0).mean() + (logits[count:] < 0).mean()
    return jnp.where(jnp.isnan(logits).any(), jnp.nan, 2 * (1 - missed))


def importance_weights(
    source: jax.Array, target: jax.Array, examples: jax.Array, *, penalty: float = 1e-2
) -> jax.Array:
    """Density ratio target / source at each example, by the odds of a linear domain classifier.

    Args:
        source, target, examples, penalty: as in `domain_logits`.

    Returns:
        [n] float32 from exp(-40) to exp(40), which odds beyond count as: sums and squares of those
        are finite.

    Bickel et al., "Discriminative Learning for Differing Training and Test Distributions", ICML
    2007; the classifier gives both domains the same prior.
    """
    logits = domain_logits(source, target, examples, penalty=penalty)
    return jnp.exp(jnp.clip(logits, -40, 40))
