"""MAML: an initialisation from which a few gradient steps on the support suffice."""

from collections.abc import Sequence
from typing import Annotated

import optax

from jaxtl.form import AT_LEAST_0, checked
from jaxtl.methods.fewshot.inner_loop import adaptation, descend
from jaxtl.plan import Learner


@checked
def maml(
    inner: optax.GradientTransformation,
    *,
    num_steps: Annotated[int, AT_LEAST_0] = 1,
    eval_steps: Annotated[int, AT_LEAST_0] | None = None,
    patterns: Sequence[str] = (".*",),
    first_order: bool = False,
    remat: bool = False,
    transductive: bool = False,
) -> Learner:
    """Answers with theta - a grad L_support(theta), or more such steps; training learns theta.

    The outer gradient goes through the steps (second order); with `first_order` it is that of the
    queries' loss at the adapted parameters (FOMAML, Section 5.2). With 0 steps the queries alone
    train. Usual: `optax.sgd(0.4)` with 1 step in training and 3 in evaluation (Omniglot),
    `optax.sgd(0.01)` for sinusoids.

    Batch statistics in training are those of the support in the inner loop and those of the queries
    for their answers; in evaluation the stored ones, unless `transductive`, which the paper is
    (without saying so) and which raises its accuracies.

    Args:
        inner: of the inner loop, such as `optax.sgd(0.4)`.
        num_steps, eval_steps, patterns, first_order, remat: as explained in the room.

    Finn et al., "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017.
    arXiv:1703.03400, Eq. 1 and Algorithms 1 and 2.
    """
    later_steps = num_steps if eval_steps is None else eval_steps

    def predict(model, params, state, support, queries, *, ways, rng, train):
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
        )
        steps = num_steps if train else later_steps
        fast = descend(task, inner, steps, rng=rng, first_order=first_order, remat=remat)
        return task.answer(fast)

    return Learner("MAML", predict, transductive=transductive, changes=tuple(patterns))
