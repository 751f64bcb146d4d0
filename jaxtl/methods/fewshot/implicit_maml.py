"""Implicit MAML: the inner problem is solved, its solution differentiated without its path."""

from collections.abc import Sequence
from typing import Annotated

import jax
import optax

from jaxtl.form import AT_LEAST_0, AT_LEAST_1, POSITIVE, checked
from jaxtl.methods.fewshot.implicit import minimum
from jaxtl.methods.fewshot.inner_loop import adaptation, descend
from jaxtl.plan import Learner


@checked
def implicit_maml(
    inner: optax.GradientTransformation,
    *,
    penalty: Annotated[float, POSITIVE] = 2.0,
    num_steps: Annotated[int, AT_LEAST_0] = 16,
    eval_steps: Annotated[int, AT_LEAST_0] | None = None,
    solver_steps: Annotated[int, AT_LEAST_1] = 5,
    patterns: Sequence[str] = (".*",),
    transductive: bool = False,
) -> Learner:
    """Answers with phi = argmin L_support(phi) + penalty / 2 |phi - theta|^2; theta is learned.

    The inner loop finds phi, and the outer gradient is (I + H / penalty)^-1 grad L_queries(phi), H
    the Hessian of L_support at phi, by conjugate gradients: memory does not grow with the number of
    steps. It is exact where the loop has arrived at the minimum.

    Args:
        inner: of the inner loop, such as `optax.sgd(0.1)`.
        penalty: the paper's lambda (2 for Omniglot, 0.5 for mini-ImageNet).
        solver_steps: of conjugate gradients, at most; the paper takes 5.
        num_steps, eval_steps, patterns: as explained in the room.

    Rajeswaran et al., "Meta-Learning with Implicit Gradients", NeurIPS 2019. arXiv:1909.04630,
    Eq. 3 and 6.
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
        theta = task.fast

        def objective(fast, key):
            distance = optax.tree.norm(optax.tree.sub(fast, theta), squared=True)
            return task.loss(fast, key) + penalty / 2 * distance

        def slope(fast):
            # The same key in each step: the function whose minimum is meant draws nothing anew.
            return jax.grad(objective)(fast, rng)

        def solve(fast):
            steps = num_steps if train else later_steps
            proximal = task._replace(fast=fast, loss=lambda fast, key: objective(fast, rng))
            return descend(proximal, inner, steps, rng=rng)

        return task.answer(minimum(slope, jax.lax.stop_gradient(theta), solve, solver_steps))

    return Learner("implicit MAML", predict, transductive=transductive, changes=tuple(patterns))
