"""Derivatives of the point where a function is least, without those of the way there."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from jaxtl.plan import PyTree


def minimum(
    slope: Callable[[PyTree], PyTree],
    start: PyTree,
    solve: Callable[[PyTree], PyTree],
    solver_steps: int,
) -> PyTree:
    """`solve(start)`, with the derivatives of the exact solution of slope(x) = 0.

    d x = -H^-1 d slope, H the Jacobian of the slope at x, which is symmetric and positive: implicit
    differentiation by conjugate gradients.

    Args:
        slope: gradient of what is minimised; what it closes over may be differentiated.
        start: its values and derivatives do not matter.
        solve: from the start to the solution; not differentiated.
        solver_steps: of conjugate gradients, at most.
    """

    def tangent_solve(product, right):
        return solve_linear(product, right, solver_steps)

    return jax.lax.custom_root(slope, start, lambda _, start: solve(start), tangent_solve)


def solve_linear(product: Callable[[PyTree], PyTree], right: PyTree, solver_steps: int) -> PyTree:
    """x with product(x) = right by conjugate gradients; the product is symmetric and positive."""
    tolerance = 10 * float(jnp.finfo(jnp.result_type(*jax.tree.leaves(right))).eps)

    def solve(product, right):
        return cg(product, right, tol=tolerance, maxiter=solver_steps)[0]

    # JAX's `cg` alone cannot be transposed here: it moves its start together with `right`.
    return jax.lax.custom_linear_solve(product, right, solve, symmetric=True)
