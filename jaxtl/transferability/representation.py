"""How good features are before a head reads them: directions, neighbours, and a linear probe."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def effective_rank(features: jax.Array) -> jax.Array:
    """exp(entropy of the singular values divided by their sum), about how many directions count.

    Of the features as they are, not centred: 1 where all examples have the same features, up to a
    factor, which have collapsed then.

    Args:
        features: [n, width] float; thousands of examples, or at least several times the width.

    Returns:
        [] float in [1, min(n, width)]; 0 where all features are 0.

    Roy & Vetterli, "The Effective Rank", EUSIPCO 2007; Garrido et al., "RankMe", ICML 2023.
    arXiv:2210.02885.
    """
    features = features / jnp.maximum(jnp.abs(features).max(), jnp.finfo(features.dtype).tiny)
    values = jnp.linalg.svd(features, compute_uv=False)
    shares = values / jnp.where(values.sum() > 0, values.sum(), 1)
    entropy = -jnp.sum(jnp.where(shares > 0, shares * jnp.log(jnp.maximum(shares, 1e-38)), 0))
    return jnp.where(values.sum() > 0, jnp.exp(entropy), 0)


def neighbour_accuracy(features: jax.Array, labels: jax.Array, *, count: int = 5) -> jax.Array:
    """How often most of the nearest other examples, by the cosine, have an example's class.

    Each example is left out when its own class is asked for. Of classes with equally many votes the
    first one wins.

    Args:
        features: [n, width] float.
        labels: [n] int; those below 0 are neither asked nor do they vote.
        count: of the neighbours; fewer where there are fewer.

    Returns:
        [] float in [0, 1], NaN where nobody can be asked.
    """
    lengths = jnp.linalg.norm(features, axis=1, keepdims=True)
    directions = features / jnp.maximum(lengths, 1e-12)
    votes = (labels >= 0)[None] & ~jnp.eye(len(labels), dtype=bool)
    cosines = jnp.matmul(directions, directions.T, precision="highest")
    nearest, chosen = jax.lax.top_k(jnp.where(votes, cosines, -jnp.inf), min(count, len(labels)))
    alike = labels[chosen][:, :, None] == labels[chosen][:, None]
    valid = jnp.isfinite(nearest)
    number = jnp.where(valid, jnp.sum(alike & valid[:, None], -1), -1)  # of each neighbour's class
    most = (number == number.max(1, keepdims=True)) & valid
    winner = jnp.where(most, labels[chosen], jnp.iinfo(jnp.int32).max).min(1)
    asked = (labels >= 0) & valid.any(1)
    right = jnp.sum(asked & (winner == labels))
    return jnp.where(asked.any(), right / jnp.maximum(asked.sum(), 1), jnp.nan)


def probe_accuracy(
    features: jax.Array,
    labels: jax.Array,
    classes: int,
    *,
    penalties: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0),
) -> jax.Array:
    """How often a linear head, fitted to the other examples, gives an example its class.

    The head is ridge regression of one-hot labels with a free intercept. Each example is left out
    in turn, in closed form: its residual over 1 minus its leverage. The penalty is the one whose
    squared error on the examples left out is least, as in scikit-learn's `RidgeCV`.

    Args:
        features: [n, width] float.
        labels: [n] int in [0, classes); those below 0 are neither fitted nor asked.
        classes: their number, static.
        penalties: > 0, in units of the mean eigenvalue of the scatter of the features, so that
            their scale does not matter.

    Returns:
        [] float in [0, 1], NaN where fewer than two examples have labels or a feature is not
        finite.
    """
    weights = (labels >= 0).astype(features.dtype)[:, None]
    total = jnp.maximum(weights.sum(), 1)
    features = features / jnp.maximum(jnp.abs(features).max(), jnp.finfo(features.dtype).tiny)
    goals = weights * jax.nn.one_hot(labels, classes, dtype=features.dtype)
    residuals = weights * (goals - goals.sum(0, keepdims=True) / total)
    mean = (weights * features).sum(0, keepdims=True) / total
    centred = weights * (features - mean)
    left, values, _ = jnp.linalg.svd(centred, full_matrices=False)
    values = values**2
    projected = jnp.matmul(left.T, residuals, precision="highest")

    def predict(penalty):
        absolute = jnp.maximum(penalty * values.sum() / features.shape[1], 1e-30)
        shrunk = (values / (values + absolute))[None]
        missed = residuals - jnp.matmul(left * shrunk, projected, precision="highest")
        leverage = (left**2 * shrunk).sum(1, keepdims=True) + 1 / total  # the intercept's part
        missed = weights * missed / jnp.maximum(1 - leverage, 1e-6)
        return jnp.sum(missed**2), goals - missed

    errors, predictions = jax.vmap(predict)(jnp.asarray(penalties, features.dtype))
    scores = predictions[errors.argmin()]
    right = jnp.sum(weights[:, 0] * (scores.argmax(1) == labels)) / total
    defined = (weights.sum() > 1) & jnp.isfinite(features).all()
    return jnp.where(defined, right, jnp.nan)
