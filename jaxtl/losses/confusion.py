"""How uncertain and how confused the predictions of unlabelled examples are."""

import jax
import jax.numpy as jnp

from jaxtl.losses.magnitude import below_largest
from jaxtl.losses.weighting import weigh, weighted_mean


def entropy(logits: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """The mean entropy of the predictions.

    Args:
        logits: [n, classes] float.
        weights: [n] float >= 0, only their proportions count; all ones if None.

    Returns:
        [] float in [0, log(classes)] nats; 0 where there is no weight.

    Grandvalet & Bengio, "Semi-supervised Learning by Entropy Minimization", NeurIPS 2004.
    """
    logits, weights, present = weigh(logits, weights)
    return jnp.where(present, weighted_mean(_entropies(jax.nn.log_softmax(logits)), weights), 0)


def information_maximization(logits: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """The mean entropy of the predictions - the entropy of the mean prediction.

    Minus the mutual information of example and predicted class: least where each prediction is
    sure and all classes are equally frequent.

    Args:
        logits: [n, classes] float.
        weights: [n] float >= 0, only their proportions count; all ones if None.

    Returns:
        [] float in [-log(classes), 0] nats, up to rounding; 0 where there is no weight.

    Krause et al., "Discriminative Clustering by Regularized Information Maximization", NeurIPS
    2010; Liang et al., "Do We Really Need to Access the Source Data?" (SHOT), 2020.
    arXiv:2002.08546.
    """
    logits, weights, present = weigh(logits, weights)
    log_p = jax.nn.log_softmax(logits)
    shares = jnp.broadcast_to((weights / weights.sum())[:, None], log_p.shape)
    mean = jax.nn.logsumexp(log_p, 0, b=shares)
    value = weighted_mean(_entropies(log_p), weights) - _entropies(mean)
    return jnp.where(present, value, 0)


def class_confusion(
    logits: jax.Array, weights: jax.Array | None = None, *, temperature: float = 2.5
) -> jax.Array:
    """How much of a class's predicted probability stands beside probability of other classes.

    With P = softmax(logits / temperature) and v_i = 1 + exp(-entropy of row i), a constant of the
    gradient as in the paper's code, the rows of M = P' diag(v) P are divided by their sums; the
    value is the sum of what is off the diagonal, over the classes. That v has the mean 1 in the
    paper cancels in the division.

    Args:
        logits: [n, classes] float.
        weights: [n] float >= 0, only their proportions count; all ones if None.
        temperature: > 0, softens the predictions.

    Returns:
        [] float in [0, 1 - 1 / classes]; 0 where there is no weight.

    Jin et al., "Minimum Class Confusion for Versatile Domain Adaptation", ECCV 2020.
    arXiv:1912.03699.
    """
    logits, weights, present = weigh(logits, weights)
    log_p = jax.nn.log_softmax(below_largest(logits) / temperature)
    certainty = jax.lax.stop_gradient(1 + jnp.exp(-_entropies(log_p)))
    # Each row of P sums to 1, so the sum of row c of M is that of column c of diag(v) P, and the
    # row's share on the diagonal is the mean of P under that column. In logarithms, a class that
    # no example predicts has a share too.
    scale = jnp.where(
        weights > 0, jnp.log(jnp.where(weights > 0, weights, 1) * certainty), -jnp.inf
    )
    columns = jax.nn.softmax(log_p + scale[:, None], 0)
    value = jnp.mean(1 - jnp.sum(columns * jnp.exp(log_p), 0))
    return jnp.where(present, value, 0)


def _entropies(log_p: jax.Array) -> jax.Array:
    """[..., classes] logarithms of probabilities -> [...] nats."""
    return -jnp.sum(jnp.exp(log_p) * log_p, -1)
