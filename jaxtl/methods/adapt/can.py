"""Contrastive adaptation: each class close across domains, different classes far apart."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.losses import contrastive_domain_discrepancy, supervised
from jaxtl.losses.kernels import MEAN_BANDWIDTHS, Bandwidths
from jaxtl.methods.adapt.sides import Weight, at_step, classes_of, split_sides
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat, outputs
from jaxtl.plan import Columns, Method, Model, Params, PyTree, StageShape, State, Statistics
from jaxtl.plan.batch import sides_of


def can(
    tx: optax.GradientTransformation | Groups,
    *,
    every: int,
    weight: Weight = 0.3,
    bandwidths: Bandwidths = MEAN_BANDWIDTHS,
    largest_distance: float = 0.05,
    smallest_class: int = 3,
) -> Method:
    """The supervised objective + weight * the contrastive domain discrepancy of the features.

    The target's labels are guessed by clusters: before step 0 and every `every` steps spherical
    k-means of all target features, started at the mean source feature of each class. A batch does
    not say which examples it holds, so the centres are kept, and an example of a batch has the
    class of the centre nearest to its features of now. Targets too far from their centre, and
    classes with too few of the near ones, are left out, as in the paper. Unlike there, batches are
    not drawn by class, the domains share their batch statistics, and only the last features count.

    Args:
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        every: steps between clusterings.
        weight: factor of the discrepancy, the paper's beta, or step -> factor.
        bandwidths: of the Gaussian kernels, as in `losses.mmd`.
        largest_distance: to a centre, (1 - cosine) / 2; the paper's D_0 on Office-31.
        smallest_class: near targets that a class needs, the paper's N_0.

    Kang et al., "Contrastive Adaptation Network for Unsupervised Domain Adaptation", CVPR 2019.
    arXiv:1901.00976.
    """

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        classes = classes_of(shape)
        width = next(iter(params["heads"].values()))["kernel"].shape[0]
        return {"centres": jnp.zeros((classes, width)), "known": jnp.zeros(classes, bool)}

    def prepare(model: Model, params: Params, state: State, domains: Sequence[Columns]):
        features = [outputs(model, params, state, rows.inputs, "features") for rows in domains]
        features = [_unit(rows.reshape(len(rows), -1)) for rows in features]
        shares = [rows.present.astype(np.float64) for rows in domains]
        head = next(iter(domains[0].labels))
        labels = [np.where(rows.weights[head] > 0, rows.labels[head], -1) for rows in domains]
        sources, targets = sides_of([rows.role for rows in domains])

        def pooled(parts: list[np.ndarray], chosen: Sequence[int]) -> np.ndarray:
            return np.concatenate([parts[d] for d in chosen])

        classes = model.heads[head].size
        source, truth, weights = (pooled(part, sources) for part in (features, labels, shares))
        centres = class_centres(source, truth, classes, weights)
        target, counts = (pooled(part, targets) for part in (features, shares))
        centres, assigned = spherical_k_means(target, centres, counts)
        near = (1 - np.sum(target * centres[assigned], 1)) / 2 < largest_distance
        sizes = np.bincount(assigned[near], counts[near], minlength=classes)
        memory = {"centres": centres.astype(np.float32), "known": sizes >= smallest_class}
        return params, state._replace(method=memory)

    def loss_fn(model: Model, params: Params, state: State, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        source, target = split_sides(output, batch)
        labels, weights = guesses(target.features, state.method, largest_distance)
        value = contrastive_domain_discrepancy(
            source.features,
            target.features,
            source.labels,
            labels,
            jnp.where(source.weights > 0, source.present, 0),
            weights * target.present,
            num_classes=target.logits.shape[-1],
            bandwidths=bandwidths,
        )
        metrics = {"task_loss": task, "contrastive_discrepancy": value, "used": weights.mean()}
        return task + at_step(weight, step) * value, (state, metrics)

    return one_update(
        as_groups(tx),
        loss_fn,
        per_example=False,
        state=start,
        prepare=prepare,
        prepare_every=every,
    )


def class_centres(
    features: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Mean features [n, width] of each class, of length 1; zeros for a class without examples."""
    if weights is not None:
        features = features * weights[:, None]
    return _unit(np.stack([features[labels == c].sum(0) for c in range(classes)]))


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
    there, assigned = centres.any(1), None
    for _ in range(rounds):
        before = assigned
        assigned = np.where(there, features @ centres.T, -np.inf).argmax(1)
        if before is not None and np.array_equal(before, assigned):
            break
        moved = class_centres(features, assigned, len(centres), weights)
        centres = np.where(moved.any(1)[:, None], moved, centres)
    return centres, assigned


def guesses(
    features: jax.Array, kept: PyTree, largest_distance: float
) -> tuple[jax.Array, jax.Array]:
    """(labels [n], weights [n] 0 or 1) of target features [n, width], constants of the gradient."""
    features = jax.lax.stop_gradient(features)
    length = jnp.maximum(jnp.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    there = kept["centres"].any(1)
    cosines = jnp.where(there[None], features / length @ kept["centres"].T, -jnp.inf)
    labels = cosines.argmax(1)
    near = (1 - cosines.max(1)) / 2 < largest_distance
    return labels, (near & kept["known"][labels]).astype(jnp.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
