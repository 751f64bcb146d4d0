"""SHOT: an encoder that fits the target to a head that stays, without the source."""

from collections.abc import Mapping
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.losses import information_maximization
from jaxtl.methods.adapt.pseudo_labels import pooled
from jaxtl.methods.adapt.sides import as_rows, head_of
from jaxtl.methods.teacher import copy_student, teacher_outputs
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat, outputs
from jaxtl.plan import Batch, Columns, Method, Model, Params, PyTree, StageShape, State, Statistics


def shot(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: float = 0.3,
    every: int = 100,
) -> Method:
    """Information maximisation + weight * cross-entropy with the classes of the nearest centroids.

    For a stage of unlabelled domains that starts from a source model; the heads stay frozen. The
    centroids are those of `class_centroids`, over all the data as the model sees them without
    training, made anew every so many steps. The paper labels every example at that moment. Here
    the centroids and the encoder of that moment are kept, and label an example, as it is augmented,
    when a batch has it. All examples count alike. The source model's label smoothing and bottleneck
    are that stage's business.

    Args:
        tx: optax transformation of all but the heads, or groups as in `transfer.grouped`.
        weight: the paper's beta; 0.1 there for digits.
        every: steps between two computations of the centroids; an epoch in the paper.

    Liang, Hu & Feng, "Do We Really Need to Access the Source Data? Source Hypothesis Transfer for
    Unsupervised Domain Adaptation", ICML 2020. arXiv:2002.08546, Eq. 3 to 7.
    """

    groups = _all_but_heads(tx)

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        shapes = {name: params["heads"][name]["kernel"].shape for name in model.heads}
        centroids = {name: jnp.zeros((size, n + 1)) for name, (n, size) in shapes.items()}
        return {**copy_student(groups, params, statistics), "centroids": centroids}

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        kept = dict(state.method["centroids"])
        seen = [outputs(model, params, state, one.inputs) for one in domains]
        features = np.concatenate([part["features"] for part in seen])
        features = features.reshape(len(features), -1)
        for head in domains[0].labels:
            logits = np.concatenate([part["logits"][head] for part in seen])
            kept[head] = class_centroids(features, logits).astype(np.float32)
        now = copy_student(groups, params, state.statistics)
        return params, state._replace(method={**now, "centroids": kept})

    def loss_fn(model: Model, params: Params, state: State, batch: Batch, rng, step: jax.Array):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        features, logits = pooled(output, batch)
        kept = state.method
        then, _ = teacher_outputs(model, params, kept, as_rows(batch.inputs))
        labels = nearest(
            then["features"].reshape(features.shape), kept["centroids"][head_of(batch)]
        )
        known = information_maximization(logits)
        named = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        metrics = {"information_maximization": known, "pseudo_loss": named}
        metrics["pseudo_agreement"] = (labels == logits.argmax(-1)).mean()
        return known + weight * named, (state, metrics)

    return one_update(
        groups,
        loss_fn,
        per_example=False,
        state=start,
        prepare=prepare,
        prepare_every=every,
        unweighted=True,
    )


def shot_im(tx: optax.GradientTransformation | Groups) -> Method:
    """`shot` without pseudo-labels: information maximisation alone, the paper's SHOT-IM.

    Args:
        tx: optax transformation of all but the heads, or groups as in `transfer.grouped`.
    """

    def loss_fn(model: Model, params: Params, state: State, batch: Batch, rng, step: jax.Array):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        loss = information_maximization(pooled(output, batch)[1])
        return loss, (state, {"information_maximization": loss})

    return one_update(_all_but_heads(tx), loss_fn, per_example=False, unweighted=True)


def class_centroids(features: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Centroids of the classes by the cosine, in two rounds.

    First the means of the features, weighted by the probabilities of a class; then the means over
    the examples that each of those is nearest to. As in public code, and unlike in the equations,
    features get a 1 appended and the length 1.

    Args:
        features: [n, features].
        logits: [n, classes].

    Returns:
        [classes, features + 1] float64; 0 for a class that no example is nearest to.
    """
    vectors = _lengthened(np.asarray(features, np.float64), np)
    weights = np.exp(logits - np.max(logits, 1, keepdims=True)).astype(np.float64)
    weights /= weights.sum(1, keepdims=True)
    first = _means(vectors, weights)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    labels = np.argmax(vectors @ first.T, 1)
    return _means(vectors, np.eye(logits.shape[1])[labels])


def nearest(features: jax.Array, centroids: jax.Array) -> jax.Array:
    """The class of the nearest centroid by the cosine.

    Args:
        features: [n, features].
        centroids: [classes, features + 1] as `class_centroids` makes them; 0 is never the nearest.

    Returns:
        [n] int.
    """
    lengths = jnp.linalg.norm(centroids, axis=1)
    cosines = _lengthened(features, jnp) @ (centroids / jnp.maximum(lengths, 1e-12)[:, None]).T
    there = jnp.broadcast_to(lengths > 0, cosines.shape)
    return jnp.where(there, cosines, -jnp.inf).argmax(1)


def _lengthened(features: np.ndarray | jax.Array, np_or_jnp: ModuleType):
    ones = np_or_jnp.ones((len(features), 1), features.dtype)
    vectors = np_or_jnp.concatenate([features, ones], 1)
    return vectors / np_or_jnp.linalg.norm(vectors, axis=1, keepdims=True)


def _means(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[classes, features], means weighted by weights [n, classes]; 0 where those are 0."""
    return weights.T @ vectors / np.maximum(weights.sum(0), 1e-300)[:, None]


def _all_but_heads(tx: optax.GradientTransformation | Groups) -> Groups:
    return as_groups(tx if isinstance(tx, Mapping) else {"all": (("(?!heads/).*",), tx)})
