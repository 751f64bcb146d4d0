"""SHOT: an encoder that fits the target to a head that stays, without the source."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.losses import information_maximization
from jaxtl.methods.adapt.class_centres import centroids_by_prediction, nearest_centroid
from jaxtl.methods.adapt.sides import as_rows, flat_features, head_of
from jaxtl.methods.teacher import copy_student, teacher_outputs
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat, outputs, read_by
from jaxtl.plan import Columns, Method, Model, Params, PyTree, StageShape, State, Statistics


def shot(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: float = 0.3,
    every: int = 100,
) -> Method:
    """Information maximisation + weight * cross-entropy with the classes of the nearest centroids.

    For a stage of unlabelled domains that starts from a source model; the heads stay frozen. The
    centroids are over all the data as the model sees them without training, made anew every so many
    steps. The paper labels every example at that moment. Here the centroids and the encoder of that
    moment are kept, and label an example, as it is augmented, when a batch has it. All examples
    count alike. The source model's label smoothing and bottleneck are that stage's business.

    Args:
        tx: of all but the heads.
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
        centroids = dict(state.method["centroids"])
        parts = [outputs(model, params, state, domain.inputs) for domain in domains]
        features = np.concatenate([part["features"] for part in parts])
        features = features.reshape(len(features), -1)
        for head in domains[0].labels:
            logits = np.concatenate([part["logits"][head] for part in parts])
            read = read_by(model, head, features)
            centroids[head] = centroids_by_prediction(read, logits).astype(np.float32)
        teacher = copy_student(groups, params, state.statistics)
        return params, state._replace(method={**teacher, "centroids": centroids})

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        head = head_of(batch)
        logits, features = as_rows((output["logits"][head], flat_features(output)))
        teacher, _ = teacher_outputs(model, params, state.method, as_rows(batch.inputs))
        teacher_features = teacher["features"].reshape(features.shape)
        teacher_features = read_by(model, head, teacher_features)
        labels = nearest_centroid(teacher_features, state.method["centroids"][head])
        information = information_maximization(logits)
        pseudo_loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        metrics = {"information_maximization": information, "pseudo_loss": pseudo_loss}
        metrics["pseudo_agreement"] = (labels == logits.argmax(-1)).mean()
        return information + weight * pseudo_loss, (state, metrics)

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
        tx: of all but the heads.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        loss = information_maximization(as_rows(output["logits"][head_of(batch)]))
        return loss, (state, {"information_maximization": loss})

    return one_update(_all_but_heads(tx), loss_fn, per_example=False, unweighted=True)


def _all_but_heads(tx: optax.GradientTransformation | Groups) -> Groups:
    return as_groups(tx if isinstance(tx, Mapping) else {"all": (("(?!heads/).*",), tx)})
