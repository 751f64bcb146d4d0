"""How good features are, without a head: the directions they use, whose neighbours they are."""

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
