"""Centres of classes among features, by the cosine: those of CAN and those of SHOT."""

from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.plan import PyTree


def class_centres(
    features: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Mean features [n, width] of each class, of length 1; zeros for a class without examples."""
    if weights is not None:
        features = features * weights[:, None]
    return unit_rows(np.stack([features[labels == c].sum(0) for c in range(classes)]))


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, width] in float64, each of length 1; zeros stay zeros."""
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def spherical_k_means(
    features: np.ndarray,
    centres: np.ndarray,
    weights: np.ndarray | None = None,
    rounds: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """k-means by cosine until nothing changes.

    Args:
        features: [n, width], of length 1.
        centres: [k, width] to start from, of length 1; one of zeros stays empty, and a cluster
            that becomes empty keeps its centre.
        weights: [n] >= 0, all ones if None.
        rounds: at most.

    Returns:
        (centres [k, width], the cluster of each example [n]).
    """
    has_centre, assigned = centres.any(1), None
    for _ in range(rounds):
        previous = assigned
        assigned = np.where(has_centre, features @ centres.T, -np.inf).argmax(1)
        if previous is not None and np.array_equal(previous, assigned):
            break
        means = class_centres(features, assigned, len(centres), weights)
        centres = np.where(means.any(1)[:, None], means, centres)
    return centres, assigned


def cluster_labels(
    features: jax.Array, clusters: PyTree, largest_distance: float
) -> tuple[jax.Array, jax.Array]:
    """(labels [n], 1 where they are used and 0 elsewhere [n]) of target features [n, width].

    Constants of the gradient.

    Args:
        features: [n, width].
        clusters: {"centres": [classes, width], "known": [classes] bool, has enough examples}.
        largest_distance: as in `can`.
    """
    features = jax.lax.stop_gradient(features)
    length = jnp.maximum(jnp.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    has_centre = clusters["centres"].any(1)
    cosines = jnp.where(has_centre[None], features / length @ clusters["centres"].T, -jnp.inf)
    labels = cosines.argmax(1)
    near = (1 - cosines.max(1)) / 2 < largest_distance
    return labels, (near & clusters["known"][labels]).astype(jnp.float32)


def centroids_by_prediction(features: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """SHOT's centroids of the classes, in two rounds.

    First the means of the features, weighted by the probabilities of a class; then the means over
    the examples that each of those is nearest to. As in public code, and unlike in the equations,
    features get a 1 appended and the length 1.

    Args:
        features: [n, features].
        logits: [n, classes].

    Returns:
        [classes, features + 1] float64; 0 for a class that no example is nearest to.
    """
    vectors = _with_one(np.asarray(features, np.float64), np)
    weights = np.exp(logits - np.max(logits, 1, keepdims=True)).astype(np.float64)
    weights /= weights.sum(1, keepdims=True)
    first = _weighted_means(vectors, weights)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    labels = np.argmax(vectors @ first.T, 1)
    return _weighted_means(vectors, np.eye(logits.shape[1])[labels])


def nearest_centroid(features: jax.Array, centroids: jax.Array) -> jax.Array:
    """The class [n] int of the centroid nearest to features.

    Args:
        features: [n, features].
        centroids: [classes, features + 1] as `centroids_by_prediction` makes them; 0 is never the
            nearest.
    """
    lengths = jnp.linalg.norm(centroids, axis=1)
    cosines = _with_one(features, jnp) @ (centroids / jnp.maximum(lengths, 1e-12)[:, None]).T
    has_centroid = jnp.broadcast_to(lengths > 0, cosines.shape)
    return jnp.where(has_centroid, cosines, -jnp.inf).argmax(1)


def _with_one(features: np.ndarray | jax.Array, np_or_jnp: ModuleType):
    ones = np_or_jnp.ones((len(features), 1), features.dtype)
    vectors = np_or_jnp.concatenate([features, ones], 1)
    return vectors / np_or_jnp.linalg.norm(vectors, axis=1, keepdims=True)


def _weighted_means(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[classes, features], means by weights [n, classes]; 0 where those are 0."""
    return weights.T @ vectors / np.maximum(weights.sum(0), 1e-300)[:, None]
