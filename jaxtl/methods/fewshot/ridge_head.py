"""R2D2: a head that is ridge regression on the support, solved inside of the program."""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxtl.form import POSITIVE, checked
from jaxtl.methods.fewshot.reading import among_present, both_features, head_of, targets
from jaxtl.plan import Learner, Module


@checked
def ridge_head(
    *,
    penalty: Annotated[float, POSITIVE] = 1.0,
    scale: Annotated[float, POSITIVE] = 1.0,
    learned: bool = True,
    transductive: bool = False,
) -> Learner:
    """Outputs scale * W' [f(x), 1], W = argmin sum_i w_i |W' [f(x_i), 1] - y_i|^2 + penalty |W|^2.

    y are one-hot classes, or the numbers of a regression, whose scale stays 1. The constant feature
    stands for the bias, penalised like the rest. Solved with a matrix of the smaller of the
    numbers of examples and of features: W = X' (X X' + penalty)^-1 Y is the paper's Eq. 6. In the
    precision of the features, which a penalty much below 1e-6 of their squares is too small for.

    Args:
        penalty: the paper's lambda, or its start.
        scale: the paper's alpha, or its start; its beta shifts all logits alike, which no softmax
            sees.
        learned: they train, as `ridge_head/log_penalty` and `ridge_head/scale`; not where an arm is
            evaluated that was trained otherwise.

    Bertinetto et al., "Meta-learning with Differentiable Closed-form Solvers", ICLR 2019.
    arXiv:1805.08136.
    """

    def init(rng, output, shape):
        return {"log_penalty": jnp.log(jnp.float32(penalty)), "scale": jnp.float32(scale)}

    def predict(model, params, state, support, queries, *, ways, rng, train):
        head = head_of(model)
        of_support, of_queries, statistics = both_features(
            model, params, state, support, queries, rng=rng, live=train or transductive
        )
        factor, strength = scale, penalty
        if learned:
            factor = params["ridge_head"]["scale"]
            strength = jnp.exp(params["ridge_head"]["log_penalty"])
        kernel = solve_ridge(
            with_constant(of_support), targets(head, support, ways), support.weights, strength
        )
        outputs = with_constant(of_queries) @ kernel
        if head.integer:
            outputs = among_present(factor * outputs, support, ways)
        return outputs, statistics

    modules = {"ridge_head": Module(init, lambda params, inputs: params["scale"] * inputs)}
    return Learner("ridge head", predict, modules if learned else {}, transductive, ())


def with_constant(features: jax.Array) -> jax.Array:
    """[n, features] -> [n, features + 1], the last one 1."""
    return jnp.concatenate([features, jnp.ones_like(features[:, :1])], 1)


def solve_ridge(
    features: jax.Array, targets: jax.Array, weights: jax.Array, penalty: jax.Array | float
) -> jax.Array:
    """argmin_W sum_i weights_i |W' features_i - targets_i|^2 + penalty |W|^2.

    Args:
        features: [n, features].
        targets: [n, outputs].
        weights: [n].

    Returns:
        [features, outputs].
    """
    roots = jnp.sqrt(weights)[:, None].astype(features.dtype)
    x, y = roots * features, roots * targets
    n, size = x.shape

    def solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
        matrix = matrix + penalty * jnp.eye(len(matrix), dtype=matrix.dtype)
        return jax.scipy.linalg.solve(matrix, right, assume_a="pos")

    return x.T @ solve(x @ x.T, y) if n < size else solve(x.T @ x, x.T @ y)
