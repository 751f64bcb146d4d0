"""Bi-Tuning: cross-entropy with two contrasts, of projections and of class hyperplanes."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import queue_contrast, queue_places, supervised
from jaxtl.methods.teacher import copy_student
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat, mlp_head
from jaxtl.paths import flatten, nest, unknown
from jaxtl.plan import Method, Model, Params, PyTree, StageShape, Statistics

PROJECTOR = "projector"


def bi_tuning(
    tx: optax.GradientTransformation | Groups,
    *,
    head: str,
    weight: float = 1.0,
    projection: int = 128,
    queue: int = 40,
    momentum: float = 0.999,
    temperature: float = 0.07,
) -> Method:
    """Fine-tuning with classes and examples contrasted with keys of a slowly moving copy.

    Adds weight * (contrast of projected features with keys of projected features + contrast of the
    hyperplane (kernel, bias) of an example's class with keys of its features), all of length 1, for
    the examples with a label of the head. The last keys of each class wait in its queue; the keys
    come from an exponential moving average of what trains.

    As in public code the second contrast takes the example's own features, not its key. Both
    contrasts read the queues before the batch enters them, as in the momentum contrast that the
    paper builds on; public code does so in the first, and in the second reads them after, so that
    keys of the batch are among those that it compares with. Unlike there the hyperplanes get the
    gradient of the second contrast, places of the queues that no key has filled yet do not count
    (random vectors there), and a key is of the same view of the input as the query. The moving
    average runs like the model that trains, with the statistics of the batch where BatchNorm is
    live.

    Args:
        tx: the projector's parameters are under `projector/`.
        head: the head of classes that is contrasted.
        projection: width of the linear projector.
        queue: keys kept of each class, the paper's K.
        momentum: decay in [0, 1) of the moving average.

    Raises:
        ValueError: when it runs, the model has no such head, or it is not one of classes, or
            no domain names it.

    Zhong et al., "Bi-tuning of Pre-trained Representations", 2020. arXiv:2011.06182.
    """
    groups, projector = as_groups(tx), mlp_head((), projection)

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        if head not in model.heads:
            raise ValueError(unknown("head", head, model.heads))
        if not model.heads[head].integer:
            raise ValueError(f"Bi-Tuning contrasts classes, head {head!r} has none.")
        width, classes = params["heads"][head]["kernel"].shape
        return {
            "teacher": copy_student(groups, params, {})["params"],
            "features": jnp.zeros((classes, queue, width + 1)),
            "projections": jnp.zeros((classes, queue, projection)),
            "count": jnp.zeros(classes, jnp.int32),
        }

    def encode(model, params, state, batch, rng):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        features = output["features"].reshape(-1, output["features"].shape[-1])
        features = features.astype(jnp.float32)
        # With a 1, so that an inner product with a hyperplane contains its bias.
        extended = _unit(jnp.pad(features, ((0, 0), (0, 1)), constant_values=1.0))
        return output, state, extended, _unit(projector.apply(params[PROJECTOR], features))

    def loss_fn(model, params, state, batch, rng, step):
        if head not in batch.labels:
            raise ValueError(f"Bi-Tuning: no domain of the stage names head {head!r}.")
        memory = state.method
        student = copy_student(groups, params, {})["params"]
        teacher = optax.incremental_update(student, memory["teacher"], 1 - momentum)
        teacher = jax.lax.stop_gradient(teacher)
        whole = nest(flatten(params) | flatten(teacher))
        _, _, *keys = encode(model, whole, state, batch, rng)
        feature_keys, projection_keys = jax.lax.stop_gradient(keys)
        output, state, features, projections = encode(model, params, state, batch, rng)
        loss, metrics = supervised(model.heads, output["logits"], batch)

        weights = batch.weights[head].reshape(-1)
        labels = jnp.maximum(batch.labels[head].reshape(-1), 0)
        plane = params["heads"][head]
        planes = _unit(jnp.concatenate([plane["kernel"], plane["bias"][None]]).T)[labels]
        filled = jnp.arange(queue)[None] < memory["count"][:, None]

        def contrast(queries: jax.Array, to_own_key: jax.Array, queued_keys: jax.Array):
            to_queued = jnp.einsum("nd,ckd->nck", queries, queued_keys)
            losses = queue_contrast(to_own_key, to_queued, labels, filled, temperature)
            return jnp.where(weights > 0, weights * losses, 0).sum() / len(batch.weights[head])

        metrics["projection_loss"] = contrast(
            projections, jnp.sum(projections * projection_keys, 1), memory["projections"]
        )
        metrics["hyperplane_loss"] = contrast(
            planes, jnp.sum(planes * features, 1), memory["features"]
        )
        loss += weight * metrics["projection_loss"]
        loss += weight * metrics["hyperplane_loss"]

        arrivals = jnp.where(weights > 0, labels, len(filled))
        place, count = queue_places(arrivals, memory["count"], queue)
        memory = {
            "teacher": teacher,
            "features": memory["features"].at[place].set(feature_keys, mode="drop"),
            "projections": memory["projections"].at[place].set(projection_keys, mode="drop"),
            "count": count,
        }
        return loss, (state._replace(method=memory), metrics)

    return one_update(
        groups, loss_fn, per_example=False, state=start, modules={PROJECTOR: projector}
    )


def _unit(vectors: jax.Array) -> jax.Array:
    """[n, width], scaled to length 1; zeros stay zeros, with a finite gradient."""
    return vectors * jax.lax.rsqrt(jnp.sum(vectors**2, 1, keepdims=True) + 1e-12)
