"""Fine-tuning on the support of each episode: the baseline of all that is learned to adapt."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import AT_LEAST_0, AT_LEAST_1, checked
from jaxtl.methods.fewshot.inner_loop import adaptation, descend
from jaxtl.methods.fewshot.reading import head_of
from jaxtl.plan import Learner, Model, Params, PyTree, State


@checked
def fine_tuning(
    inner: optax.GradientTransformation,
    *,
    num_steps: Annotated[int, AT_LEAST_0] = 100,
    patterns: Sequence[str] = (".*",),
    fresh_head: bool = True,
    rows: Annotated[int, AT_LEAST_1] | None = None,
    transductive: bool = False,
) -> Learner:
    """Answers with the model after `num_steps` on the mean loss of the support.

    For evaluation. Trained with, it is first-order MAML. The statistics of batch norms are those of
    the arm, as everywhere in evaluation.

    Args:
        inner: such as `optax.adam(1e-3)`, anew in each episode.
        patterns: path patterns of what trains; the head must be among them if it is fresh.
        fresh_head: the head starts from zeros, whatever the arm has learned there.
        rows: of the support in each step, drawn anew; all if None.
    """

    def predict(model, params, state, support, queries, *, ways, rng, train):
        if fresh_head:
            params = with_zero_head(model, params, state, support.inputs)
        task = adaptation(
            model,
            params,
            state,
            support,
            queries,
            patterns=patterns,
            ways=ways,
            rng=rng,
            live=train or transductive,
            rows=rows,
        )
        return task.answer(descend(task, inner, num_steps, rng=rng, first_order=True))

    return Learner("fine-tuning", predict, transductive=transductive, changes=tuple(patterns))


def with_zero_head(model: Model, params: Params, state: State, inputs: PyTree) -> Params:
    """The same with zeros for the one head, which need not be there."""
    headless = dataclasses.replace(model, heads={})
    output, _ = jax.eval_shape(headless.apply, params, state.statistics, inputs)
    features = output["features"]
    (name,), size = model.heads, head_of(model).size
    zeros = {
        "kernel": jnp.zeros((features.size // features.shape[0], size), features.dtype),
        "bias": jnp.zeros((size,), features.dtype),
    }
    return {**params, "heads": {**params.get("heads", {}), name: zeros}}
