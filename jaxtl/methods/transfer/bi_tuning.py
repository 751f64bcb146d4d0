"""Bi-Tuning: cross-entropy with two contrasts, of projections and of class hyperplanes."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import queue_contrast, supervised
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update, trained_paths
from jaxtl.models import apply_flat, mlp_head
from jaxtl.paths import flatten, join, split, unknown
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
        tx: optax transformation of all parameters, or groups as in `grouped`; the projector's are
            under `projector/`.
        head: the head of classes that is contrasted.
        weight: of both contrasts, >= 0.
        projection: width of the linear projector.
        queue: keys kept of each class, the paper's K.
        momentum: decay in [0, 1) of the moving average.
        temperature: > 0, of both contrasts.

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
        moving = trained_paths(groups, params)
        return {
            "average": split(params, lambda p: p in moving and not p.startswith("heads/"))[0],
            "features": jnp.zeros((classes, queue, width + 1)),
            "projections": jnp.zeros((classes, queue, projection)),
            "count": jnp.zeros(classes, jnp.int32),
        }

    def encode(model, params, state, batch, rng):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        features = output["features"].reshape(-1, output["features"].shape[-1])
        features = features.astype(jnp.float32)
        ones = jnp.ones((len(features), 1))
        unit_features = _unit(jnp.concatenate([features, ones], 1))
        return output, state, unit_features, _unit(projector.apply(params[PROJECTOR], features))

    def loss_fn(model, params, state, batch, rng, step):
        if head not in batch.labels:
            raise ValueError(f"Bi-Tuning: no domain of the stage names head {head!r}.")
        kept = state.method
        paths = flatten(kept["average"])
        inside, outside = split(params, lambda path: path in paths)
        average = optax.incremental_update(inside, kept["average"], 1 - momentum)
        average = jax.lax.stop_gradient(average)
        _, _, *keys = encode(model, join(average, outside), state, batch, rng)
        keys = jax.lax.stop_gradient(keys)
        output, state, features, projections = encode(model, params, state, batch, rng)
        loss, metrics = supervised(model.heads, output["logits"], batch)

        weights = batch.weights[head].reshape(-1)
        labels = jnp.maximum(batch.labels[head].reshape(-1), 0)
        planes = params["heads"][head]
        planes = _unit(jnp.concatenate([planes["kernel"], planes["bias"][None]]).T)[labels]
        filled = jnp.arange(queue)[None] < kept["count"][:, None]
        contrasts = {
            "projection_loss": (projections, jnp.sum(projections * keys[1], 1), "projections"),
            "hyperplane_loss": (planes, jnp.sum(planes * features, 1), "features"),
        }
        for name, (queries, own, column) in contrasts.items():
            queued = jnp.einsum("nd,ckd->nck", queries, kept[column])
            losses = queue_contrast(own, queued, labels, filled, temperature)
            total = jnp.where(weights > 0, weights * losses, 0).sum()
            metrics[name] = total / len(batch.weights[head])
            loss += weight * metrics[name]
        place, count = places(jnp.where(weights > 0, labels, len(filled)), kept["count"], queue)
        kept = {
            "average": average,
            "features": kept["features"].at[place].set(keys[0], mode="drop"),
            "projections": kept["projections"].at[place].set(keys[1], mode="drop"),
            "count": count,
        }
        return loss, (state._replace(method=kept), metrics)

    return one_update(
        groups, loss_fn, per_example=False, state=start, modules={PROJECTOR: projector}
    )


def places(
    labels: jax.Array, count: jax.Array, length: int
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Where the keys of a batch go in the queues of their classes, one after the other.

    Args:
        labels: [n] int; `classes` for an example that goes nowhere.
        count: [classes] int, keys that ever entered each queue; the next replaces the oldest.
        length: of a queue.

    Returns:
        ((class [n], place [n]), the new counts); the class is out of range for a key that goes
        nowhere, or that another one of the same batch would replace.
    """
    classes = len(count)
    member = jax.nn.one_hot(labels, classes, dtype=jnp.int32)
    before = jnp.cumsum(member, 0) - member
    rank = jnp.sum(before * member, 1)
    arrived = jnp.sum(member, 0)
    label = jnp.minimum(labels, classes - 1)
    stays = (labels < classes) & (rank >= arrived[label] - length)
    place = (count[label] + rank) % length
    return (jnp.where(stays, labels, classes), place), count + arrived


def _unit(vectors: jax.Array) -> jax.Array:
    """[n, width], scaled to length 1; zeros stay zeros, with a finite gradient."""
    return vectors * jax.lax.rsqrt(jnp.sum(vectors**2, 1, keepdims=True) + 1e-12)
