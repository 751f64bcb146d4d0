"""Self-Tuning: pseudo-labels choose groups of keys to be near to, and never a class to predict."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import queue_contrast, queue_places, supervised
from jaxtl.methods.adapt.sides import (
    Weight,
    as_rows,
    at_step,
    classes_of,
    example_mean,
    head_of,
    labelled_weights,
    target_rows,
)
from jaxtl.methods.pretrain.views import unit
from jaxtl.methods.teacher import copy_student
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat, mlp_head
from jaxtl.paths import flatten, nest
from jaxtl.plan import Batch, Method, Model, Params, PyTree, StageShape, Statistics
from jaxtl.plan.batch import sides_of

PROJECTOR = "projector"


def self_tuning(
    tx: optax.GradientTransformation | Groups,
    *,
    augment: Callable[[jax.Array, PyTree], PyTree],
    weight: Weight = 1.0,
    projection: int = 1024,
    queue: int = 32,
    momentum: float = 0.999,
    temperature: float = 0.07,
) -> Method:
    """The supervised objective + weight * contrasts of labelled and of unlabelled examples.

    An example's projected features, of length 1, are to be near to its own key and to the keys that
    wait in the queue of its class, and far from those of other classes. Its key is a slowly moving
    copy's view of it; the class is its label or, without one, the one predicted, so that a wrong
    guess misplaces it among many keys where cross-entropy would teach the guess. Labelled and
    unlabelled keys share the queues. Both contrasts read the queues before the batch enters them,
    and places that no key has filled yet do not count; random vectors wait there in public code.

    Args:
        augment: (rng, inputs [n, ...] float) -> inputs, the view of a key; queries are the inputs
            of the batch, as the domains' own `augment` leaves them.
        projection: width of the linear projector.
        queue: keys of each class that wait, the paper's D.
        momentum: decay in [0, 1) of the moving average.
        temperature: > 0, divides the similarities.

    Wang et al., "Self-Tuning for Data-Efficient Deep Learning", ICML 2021.
    arXiv:2102.12903.
    """
    groups, projector = as_groups(tx), mlp_head((), projection)

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        classes = classes_of(shape)
        return {
            "teacher": copy_student(groups, params, {})["params"],
            "keys": jnp.zeros((classes, queue, projection)),
            "count": jnp.zeros(classes, jnp.int32),
        }

    def encode(model, params, state, inputs, rng):
        output, state = apply_flat(model, params, state, inputs, rng=rng, train=True)
        features = output["features"].astype(jnp.float32)
        features = features.reshape(features.shape[0] * features.shape[1], -1)
        return output, state, unit(projector.apply(params[PROJECTOR], features))

    def loss_fn(model, params, state, batch, rng, step):
        head, memory = head_of(batch), state.method
        size, domains = batch.present.shape
        views = augment(jax.random.fold_in(rng, 1), as_rows(batch.inputs))
        views = jax.tree.map(lambda leaf: leaf.reshape(size, domains, *leaf.shape[1:]), views)
        student = copy_student(groups, params, {})["params"]
        teacher = optax.incremental_update(student, memory["teacher"], 1 - momentum)
        teacher = jax.lax.stop_gradient(teacher)
        whole = nest(flatten(params) | flatten(teacher))
        keys = jax.lax.stop_gradient(encode(model, whole, state, views, rng)[2])
        output, state, queries = encode(model, params, state, batch.inputs, rng)
        task, _ = supervised(model.heads, output["logits"], batch)

        groups_of, seen = groups_and_weights(batch, output["logits"][head])
        to_own_key = jnp.sum(queries * keys, 1)
        to_queued = jnp.einsum("nd,ckd->nck", queries, memory["keys"])
        filled = jnp.arange(queue)[None] < memory["count"][:, None]
        losses = queue_contrast(to_own_key, to_queued, groups_of, filled, temperature)
        losses = losses.reshape(size, domains)
        labelled = labelled_weights(batch)
        labelled_loss = jnp.where(labelled > 0, batch.weights[head] * losses, 0).sum() / size
        unlabelled_loss = example_mean(*target_rows((losses, batch.present - labelled), batch))

        arrivals = jnp.where(seen > 0, groups_of, len(filled))
        place, count = queue_places(arrivals, memory["count"], queue)
        memory = {
            "teacher": teacher,
            "keys": memory["keys"].at[place].set(keys, mode="drop"),
            "count": count,
        }
        loss = task + at_step(weight, step) * (labelled_loss + unlabelled_loss)
        metrics = {"task_loss": task, "labelled_contrast": labelled_loss}
        metrics["unlabelled_contrast"] = unlabelled_loss
        return loss, (state._replace(method=memory), metrics)

    modules = {PROJECTOR: projector}
    return one_update(groups, loss_fn, per_example=False, state=start, modules=modules)


def groups_and_weights(batch: Batch, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(class [n] int whose keys are an example's group, weight [n] with which it is there).

    Args:
        batch: of [size, domains]; a target's examples without a label are there too.
        logits: [size, domains, classes]; guesses are constants of the gradient.
    """
    labelled = labelled_weights(batch)
    targets = jnp.zeros(batch.present.shape[1]).at[jnp.array(sides_of(batch.roles)[1])].set(1)
    present = jnp.where(labelled > 0, labelled, batch.present * targets[None])
    guesses = jax.lax.stop_gradient(logits).argmax(-1)
    chosen = jnp.where(labelled > 0, batch.labels[head_of(batch)], guesses)
    return chosen.reshape(-1), present.reshape(-1)
