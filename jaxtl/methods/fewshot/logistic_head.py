"""MetaOptNet with logistic regression: a convex head, differentiated at its solution."""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.form import AT_LEAST_1, POSITIVE, checked
from jaxtl.methods.fewshot import scale as scales
from jaxtl.methods.fewshot.implicit import minimum, solve_linear
from jaxtl.methods.fewshot.reading import (
    among_present,
    both_features,
    check_classes,
    head_of,
    targets,
)
from jaxtl.methods.fewshot.ridge_head import with_constant
from jaxtl.plan import Learner


@checked
def logistic_head(
    *,
    penalty: Annotated[float, POSITIVE] = 1.0,
    scale: Annotated[float, POSITIVE] = 1.0,
    learn_scale: bool = False,
    num_steps: Annotated[int, AT_LEAST_1] = 10,
    solver_steps: Annotated[int, AT_LEAST_1] = 50,
    transductive: bool = False,
) -> Learner:
    """Logits scale * W' [f(x), 1] of the logistic regression W of the support.

    W minimises sum_i w_i cross_entropy(W' [f(x_i), 1], y_i) + penalty / 2 |W|^2. It is found by
    Newton's method, each step's equations by conjugate gradients, and differentiated implicitly:
    where the gradient is 0, dW = -H^-1 d(gradient), by conjugate gradients again. So the backward
    pass costs one solution whatever the number of steps, as in the paper, and needs no quadratic
    programme; of its heads (an SVM does best there by about a percent, beside ridge and logistic
    regression) this is the one whose loss is smooth, so that its solution has a derivative
    everywhere. The constant feature stands for the bias, penalised like the rest.

    Args:
        penalty: > 0; what makes the solution of separable classes unique.
        scale, learn_scale: as in `prototypical`.
        num_steps: Newton steps, each with the best of eight lengths.
        solver_steps: of conjugate gradients, at most.

    Lee et al., "Meta-Learning with Differentiable Convex Optimization", CVPR 2019.
    arXiv:1904.03758, Eq. 7 and Section 3.
    """

    def predict(model, params, state, support, queries, *, ways, rng, train):
        check_classes(model, "logistic_head")
        of_support, of_queries, statistics = both_features(
            model, params, state, support, queries, rng=rng, live=train or transductive
        )
        features = with_constant(of_support)
        labels = targets(head_of(model), support, ways).astype(features.dtype)

        def objective(kernel):
            # Among the classes that are there, as if the others were not.
            logits = among_present(features @ kernel, support, ways)
            losses = optax.softmax_cross_entropy(logits, labels)
            return jnp.sum(support.weights * losses) + penalty / 2 * jnp.sum(kernel**2)

        start = jnp.zeros((features.shape[1], ways), features.dtype)
        kernel = minimise(objective, start, num_steps, solver_steps)
        logits = scales.factor(params, scale, learn_scale) * (with_constant(of_queries) @ kernel)
        return among_present(logits, support, ways), statistics

    return Learner("logistic head", predict, scales.modules(scale, learn_scale), transductive, ())


def minimise(
    objective: Callable[[jax.Array], jax.Array], start: jax.Array, steps: int, solver_steps: int
) -> jax.Array:
    """Where a strictly convex function is least; derivatives are those of the exact solution.

    Args:
        objective: smooth, [] of an array; what it closes over may be differentiated.
        steps: of Newton's method.
        solver_steps: of conjugate gradients, at most.
    """
    gradient = jax.grad(objective)
    lengths = 0.5 ** np.arange(8)

    def step(point, _):
        slope, curvature = jax.linearize(gradient, point)
        direction = solve_linear(curvature, -slope, solver_steps)
        points = [point + length * direction for length in lengths]
        values = jnp.stack([objective(candidate) for candidate in points])
        return jnp.stack(points)[values.argmin()], None

    def solve(start):
        return jax.lax.scan(step, start, length=steps)[0]

    return minimum(gradient, start, solve, solver_steps)
