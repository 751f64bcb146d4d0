"""Reptile: the initialisation moves towards what training on an episode makes of it."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import AT_LEAST_0, AT_LEAST_1, checked
from jaxtl.losses import weighted_losses
from jaxtl.methods.fewshot.fine_tuning import fine_tuning
from jaxtl.methods.fewshot.inner_loop import adaptation, descend
from jaxtl.methods.fewshot.reading import weighted_mean
from jaxtl.models import episode_head
from jaxtl.paths import flatten
from jaxtl.plan import Examples, Method, Update


@checked
def reptile(
    tx: optax.GradientTransformation,
    inner: optax.GradientTransformation,
    *,
    num_steps: Annotated[int, AT_LEAST_1] = 5,
    eval_steps: Annotated[int, AT_LEAST_0] = 50,
    rows: Annotated[int, AT_LEAST_1] | None = None,
    patterns: Sequence[str] = (".*",),
) -> Method:
    """Steps along theta - theta', theta' after `num_steps` on all rows of an episode, averaged.

    theta - theta' stands for a gradient (the paper's remark after Algorithm 2): with
    `tx=optax.sgd(e)` this is theta + e (theta' - theta). Support and queries both train. No
    gradient goes through the inner loop; with one inner step this is training on all tasks jointly,
    so that several are needed. The loss that is logged is that of theta' on all rows. Evaluated
    with `fine_tuning` from theta, its head included.

    Args:
        inner: of the inner loop; the paper's is `optax.adam(1e-3, b1=0)`.
        num_steps, eval_steps, patterns: as explained in the room.
        rows: of an episode in each inner step, drawn anew (10 in the paper); all if None. From
            several rows a step goes where their gradients agree, which is what Reptile is about.

    Nichol et al., "On First-Order Meta-Learning Algorithms", 2018. arXiv:1803.02999, Algorithm 2.
    """

    def loss_fn(model, params, state, batch, rng, step):
        name = episode_head(model, batch)
        head = model.heads[name]
        alone = dataclasses.replace(model, heads={name: head})

        def train_on(inputs, labels, weights, rng):
            examples = Examples(inputs, labels, weights)
            task = adaptation(
                alone,
                params,
                state,
                examples,
                examples,
                patterns=patterns,
                ways=head.size,
                rng=rng,
                live=True,
                rows=rows,
            )
            fast = descend(task, inner, num_steps, rng=rng)
            logits, moved = task.answer(fast)
            losses = weighted_losses(head, logits, labels, (weights > 0).astype(weights.dtype))
            change = jax.tree.map(jnp.subtract, task.fast, fast)
            moved = jax.tree.map(jnp.subtract, moved, state.statistics)
            return weighted_mean(losses, weights), change, moved

        rngs = jax.random.split(rng, len(batch.present))
        each = jax.vmap(train_on)(batch.inputs, batch.labels[name], batch.present, rngs)
        loss, change, moved = jax.tree.map(lambda leaf: leaf.mean(0), jax.lax.stop_gradient(each))
        # Linear in theta: its gradient is the change, its value is not wanted.
        flat = flatten(params)
        slope = sum(jnp.vdot(flat[path], leaf) for path, leaf in flatten(change).items())
        statistics = jax.tree.map(jnp.add, state.statistics, moved)
        loss = loss + slope - jax.lax.stop_gradient(slope)
        return loss, (state._replace(statistics=statistics), {})

    return Method(
        {"all": (tuple(patterns), tx)},
        (Update(loss_fn, per_example=True),),
        learner=fine_tuning(inner, num_steps=eval_steps, patterns=patterns, fresh_head=False),
    )
