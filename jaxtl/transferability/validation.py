"""How good is an adapted model, judged without labels of the target: arrays -> score.

Risks are better when smaller, scores when larger; each says which.
"""

import jax
import jax.numpy as jnp


def deep_embedded_risk(losses: jax.Array, weights: jax.Array) -> jax.Array:
    """The mean of weights * losses with a control variate; better when smaller.

    mean(w l) + eta (mean(w) - 1) with eta = -cov(w l, w) / var(w); the plain weighted risk where
    all weights are equal.

    Args:
        losses: [n] float, or errors 0 and 1, of held-out source examples.
        weights: [n] float >= 0, density ratios target / source.

    You et al., "Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation", ICML
    2019, Algorithm 1.
    """
    # Squares of large weights would overflow; eta does not depend on their scale.
    scale = jnp.maximum(jax.lax.stop_gradient(weights.max()), jnp.finfo(jnp.float32).tiny)
    weights = weights / scale
    products, centred = weights * losses, weights - weights.mean()
    variance = (centred**2).mean()
    covariance = ((products - products.mean()) * centred).mean()
    eta = -covariance / jnp.where(variance > 0, variance, 1.0)
    excess = scale * weights.mean() - 1
    return scale * products.mean() + jnp.where(variance > 0, eta, 0.0) * excess


def soft_neighborhood_density(logits: jax.Array, *, temperature: float = 0.05) -> jax.Array:
    """Mean entropy of the similarities of each example to the others; better when larger.

    Similarities are cosines of the class probabilities, softened by a softmax with `temperature`,
    an example's own left out. It is log(n - 1) where all are alike, a collapsed model included.

    Args:
        logits: [n, classes] of target examples, n >= 2.
        temperature: > 0.

    Saito et al., "Tune it the Right Way: Unsupervised Validation of Domain Adaptation via Soft
    Neighborhood Density", ICCV 2021. arXiv:2108.10860.
    """
    outputs = jax.nn.softmax(logits.astype(jnp.float32))
    outputs = outputs / jnp.linalg.norm(outputs, axis=1, keepdims=True)
    itself = jnp.eye(len(outputs), dtype=bool)
    similarity = jnp.where(itself, -jnp.inf, outputs @ outputs.T / temperature)
    logged = jnp.where(itself, 0.0, jax.nn.log_softmax(similarity))
    return -(jnp.exp(logged) * logged).sum(1, where=~itself).mean()


def mixed_agreement(
    logits: jax.Array, partners: jax.Array, mixed_logits: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """How often a mixture is given the class of its larger part; better when larger.

    Args:
        logits: [n, classes] of target examples.
        partners: [n] int, the example that each is mixed with.
        mixed_logits: [n, classes] of share * input + (1 - share) * the partner's, share > 1/2.

    Returns:
        ([] among the pairs that are predicted as one class, [] among the others), in [0, 1]; 0
        where there is no such pair, NaN where one of the logits is.

    Hu et al., "Mixed Samples as Probes for Unsupervised Model Selection in Domain Adaptation",
    NeurIPS 2023: the probes within and between clusters.
    """
    classes = logits.argmax(1)
    alike, agrees = classes == classes[partners], mixed_logits.argmax(1) == classes
    missing = jnp.isnan(logits).any() | jnp.isnan(mixed_logits).any()

    def share(pairs: jax.Array) -> jax.Array:
        agreed = (agrees & pairs).sum() / jnp.maximum(pairs.sum(), 1)
        return jnp.where(missing, jnp.nan, agreed)

    return share(alike), share(~alike)
