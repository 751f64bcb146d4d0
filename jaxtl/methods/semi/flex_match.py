"""FlexMatch: FixMatch with a lower threshold for classes that are learned less well."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.extra_views import apply_beside
from jaxtl.methods.adapt.sides import (
    Weight,
    at_step,
    classes_of,
    example_mean,
    head_of,
    target_rows,
)
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.plan import Columns, Method, Model, Params, PyTree, StageShape, State, Statistics
from jaxtl.plan.batch import sides_of


def flex_match(
    tx: optax.GradientTransformation | Groups,
    *,
    strong: Callable[[jax.Array, PyTree], PyTree],
    threshold: float = 0.95,
    weight: Weight = 1.0,
) -> Method:
    """`fix_match` whose threshold of a class is threshold * M(how well it is learned).

    Each target remembers the class of which it was last sure, at the whole threshold; a class is
    learned as well as the share of its number in the largest one's (or in that of the targets
    without a class, while those are more), and M(x) = x / (2 - x).

    Args:
        threshold: the paper's tau; the largest one of a class.

    Zhang et al., "FlexMatch: Boosting Semi-Supervised Learning with Curriculum Pseudo Labeling",
    NeurIPS 2021. arXiv:2110.08263, Eq. 5 to 11.
    """

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        rows = {str(d): shape.rows[d] for d in sides_of(shape.roles)[1]}
        nothing = classes_of(shape)  # the class after the last one: never sure so far
        last_class = {d: jnp.full(count, nothing, jnp.int32) for d, count in rows.items()}
        return {"last_class": last_class, "examples": jnp.float32(sum(rows.values()))}

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        # A seed may draw some rows of a table: the others have no class, and do not count.
        count = sum(len(rows.present) for rows in domains if rows.role == "target")
        return params, state._replace(method={**state.method, "examples": np.float32(count)})

    def loss_fn(model, params, state, batch, rng, step):
        head, memory = head_of(batch), state.method
        views = strong(jax.random.fold_in(rng, 1), target_rows(batch.inputs, batch))
        weak, seen, state = apply_beside(model, params, state, batch, views, rng)
        task, _ = supervised(model.heads, weak["logits"], batch)
        logits, present = target_rows((weak["logits"][head], batch.present), batch)
        p = jax.nn.softmax(jax.lax.stop_gradient(logits))
        labels, confidence = p.argmax(-1), p.max(-1)
        every = jnp.concatenate([*memory["last_class"].values()])
        learned = learning_status(every, memory["examples"], p.shape[-1])
        thresholds = threshold * learned / (2 - learned)
        used = (confidence >= thresholds[labels]).astype(jnp.float32)
        strong_logits = seen["logits"][head]
        losses = optax.softmax_cross_entropy_with_integer_labels(strong_logits, labels)
        pseudo_loss = example_mean(used * losses, present)

        sure = (confidence >= threshold) & (present > 0)
        by_domain = [leaf.reshape(len(batch.present), -1) for leaf in (labels, sure)]
        last_class = dict(memory["last_class"])
        for i, d in enumerate(sides_of(batch.roles)[1]):
            of_domain = (leaf[:, i] for leaf in by_domain)
            last_class[str(d)] = remember(last_class[str(d)], batch.index[:, d], *of_domain)
        metrics = {"task_loss": task, "pseudo_loss": pseudo_loss, "pseudo_share": used.mean()}
        metrics["lowest_threshold"] = thresholds.min()
        state = state._replace(method={**memory, "last_class": last_class})
        return task + at_step(weight, step) * pseudo_loss, (state, metrics)

    # What is remembered follows the order of the examples, one update for a whole batch.
    return one_update(as_groups(tx), loss_fn, per_example=False, state=start, prepare=prepare)


def learning_status(last_class: jax.Array, examples: jax.Array, classes: int) -> jax.Array:
    """How well each class is learned, [classes] in [0, 1].

    Args:
        last_class: [rows] int in [0, classes], `classes` for a row without a class.
        examples: [] float, number of rows that there are; others have no class.
    """
    counts = jnp.sum(jax.nn.one_hot(last_class, classes), 0)
    return counts / jnp.maximum(jnp.maximum(counts.max(), examples - counts.sum()), 1)


def remember(
    last_class: jax.Array, rows: jax.Array, labels: jax.Array, sure: jax.Array
) -> jax.Array:
    """The classes [rows] with those of a batch.

    Args:
        last_class: [rows] int.
        rows: [n] int; of a row that is there twice the later one counts.
        labels: [n] int.
        sure: [n] bool, whether it is taken.
    """
    again = jnp.triu((rows[:, None] == rows[None]) & sure[None], 1).any(1)
    taken = jnp.where(sure & ~again, rows, len(last_class))
    return last_class.at[taken].set(labels.astype(last_class.dtype), mode="drop")
