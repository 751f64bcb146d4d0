"""Contrastive adaptation: each class close across domains, different classes far apart."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.losses import contrastive_domain_discrepancy, supervised
from jaxtl.losses.kernels import MEAN_BANDWIDTHS, Bandwidths
from jaxtl.methods.adapt.class_centres import (
    class_centres,
    cluster_labels,
    spherical_k_means,
    unit_rows,
)
from jaxtl.methods.adapt.sides import (
    Weight,
    at_step,
    classes_of,
    flat_features,
    head_of,
    labelled_weights,
    rows_by_side,
    source_rows,
    target_rows,
)
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
        every: steps between clusterings.
        weight: the paper's beta.
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
        features = [unit_rows(rows.reshape(len(rows), -1)) for rows in features]
        present = [rows.present.astype(np.float64) for rows in domains]
        head = next(iter(domains[0].labels))
        labels = [np.where(rows.weights[head] > 0, rows.labels[head], -1) for rows in domains]
        sources, targets = sides_of([rows.role for rows in domains])

        def pooled(parts: list[np.ndarray], side: Sequence[int]) -> np.ndarray:
            return np.concatenate([parts[d] for d in side])

        classes = model.heads[head].size
        source, truth, weights = (pooled(part, sources) for part in (features, labels, present))
        centres = class_centres(source, truth, classes, weights)
        target, weights = (pooled(part, targets) for part in (features, present))
        centres, assigned = spherical_k_means(target, centres, weights)
        near = (1 - np.sum(target * centres[assigned], 1)) / 2 < largest_distance
        sizes = np.bincount(assigned[near], weights[near], minlength=classes)
        clusters = {"centres": centres.astype(np.float32), "known": sizes >= smallest_class}
        return params, state._replace(method=clusters)

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        head = head_of(batch)
        source, target = rows_by_side(flat_features(output), batch)
        labels, used = cluster_labels(target, state.method, largest_distance)
        discrepancy = contrastive_domain_discrepancy(
            source,
            target,
            source_rows(batch.labels[head], batch),
            labels,
            source_rows(labelled_weights(batch), batch),
            used * target_rows(batch.present, batch),
            num_classes=output["logits"][head].shape[-1],
            bandwidths=bandwidths,
        )
        metrics = {"task_loss": task, "contrastive_discrepancy": discrepancy, "used": used.mean()}
        return task + at_step(weight, step) * discrepancy, (state, metrics)

    return one_update(
        as_groups(tx),
        loss_fn,
        per_example=False,
        state=start,
        prepare=prepare,
        prepare_every=every,
    )
