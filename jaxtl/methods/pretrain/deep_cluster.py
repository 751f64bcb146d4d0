"""DeepCluster: the classes that a network learns are clusters of its own features."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.methods.adapt.class_centres import spherical_k_means, unit_rows
from jaxtl.methods.pretrain.views import Augment, encode, flat, on_features, unlabelled_rows
from jaxtl.methods.teacher import copy_student, teacher_outputs
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import mlp_head, outputs
from jaxtl.paths import flatten, nest
from jaxtl.plan import Columns, Method, Model, Params, PyTree, StageShape, State, Statistics

CLUSTERS = "clusters"


def deep_cluster(
    tx: optax.GradientTransformation | Groups,
    *,
    clusters: int,
    every: int,
    augment: Augment | None = None,
) -> Method:
    """Cross-entropy with the cluster of each example's features.

    Before step 0 and every `every` steps, centred features of length 1 of all examples are
    clustered anew by spherical k-means, and the classifier, linear on the features, starts from 0
    again, as clusters of two times do not correspond. A batch does not say which examples it holds:
    the centres are kept with a copy of the encoder of that time, by which examples get their
    cluster as they are, before `augment`. The paper whitens 256 principal components first and
    draws batches in which all clusters are equally frequent; here large ones weigh more.

    Args:
        clusters: the paper's k; some ten times as many as classes that are expected.
        every: steps between two clusterings; an epoch in the paper.
        augment: (rng, inputs [n, ...]) -> inputs, of what learns.

    Raises:
        ValueError: there are fewer than 2 clusters, or every is not positive.

    Caron et al., "Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018.
    arXiv:1807.05520.
    """
    if clusters < 2 or every < 1:
        raise ValueError(
            f"deep_cluster needs at least 2 clusters and 1 step between clusterings, got "
            f"clusters={clusters}, every={every}"
        )
    groups, classifier = as_groups(tx), on_features(mlp_head((), clusters))

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        width = params[CLUSTERS]["output"]["kernel"].shape[0]
        centres = {"mean": jnp.zeros(width), "centres": jnp.zeros((clusters, width))}
        return {**copy_student(groups, params, statistics), **centres}

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        parts = [outputs(model, params, state, rows.inputs, "features") for rows in domains]
        features = np.concatenate([part.reshape(len(part), -1) for part in parts])
        if len(features) < clusters:
            raise ValueError(f"{len(features)} examples cannot be {clusters} clusters")
        mean = features.mean(0, dtype=np.float64)
        directions = unit_rows(features - mean)
        first = np.random.default_rng(0).choice(len(features), clusters, replace=False)
        centres, _ = spherical_k_means(directions, directions[first])
        copy = copy_student(groups, params, state.statistics)
        kept = {"mean": mean.astype(np.float32), "centres": centres.astype(np.float32)}
        flat_params = flatten(params)
        anew = {path: np.zeros_like(x) for path, x in flatten(params[CLUSTERS]).items()}
        flat_params |= {f"{CLUSTERS}/{path}": leaf for path, leaf in anew.items()}
        return nest(flat_params), state._replace(method={**copy, **kept})

    def loss_fn(model, params, state, batch, rng, step):
        inputs, memory = unlabelled_rows(batch), state.method
        output, _ = teacher_outputs(model, params, memory, inputs)
        # The sign and order of cosines need no division by the length of the features.
        likeness = (flat(output["features"]) - memory["mean"][None]) @ memory["centres"].T
        labels = likeness.argmax(-1)
        seen = inputs if augment is None else augment(jax.random.fold_in(rng, 1), inputs)
        features, state = encode(model, params, state, seen, rng)
        logits = classifier.apply(params[CLUSTERS], features)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, (state, {"cluster_accuracy": jnp.mean(logits.argmax(-1) == labels)})

    return one_update(
        groups,
        loss_fn,
        per_example=True,
        modules={CLUSTERS: classifier},
        state=start,
        prepare=prepare,
        prepare_every=every,
        unweighted=True,
    )
