"""What is the mean over pairs of domains."""

import itertools
from collections.abc import Callable

import jax

from jaxtl.methods.generalize.risks import check_sources
from jaxtl.plan import Batch

Distance = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def mean_of_pairs(distance: Distance, features: jax.Array, batch: Batch) -> jax.Array:
    """The mean of a distance over all pairs of domains, labels apart.

    Args:
        distance: (features [n, width], others [n, width], weights [n], their weights [n]) -> [].
        features: [batch, domains, width].
        batch: whose `present` are the weights.

    Raises:
        ValueError: the domains are not several labelled sources.
    """
    check_sources(batch)
    pairs = list(itertools.combinations(range(len(batch.roles)), 2))
    present = batch.present
    return sum(
        distance(features[:, i], features[:, j], present[:, i], present[:, j]) for i, j in pairs
    ) / len(pairs)
