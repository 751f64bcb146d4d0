"""AdaLoRA's budget: an optimizer that leaves rank where it matters, for `adapters.adalora`.

Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", 2023.
arXiv:2303.10512.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtl import paths
from jaxtl.models.adapters.adalora import TRIPLET, triplets


class BudgetState(NamedTuple):
    """What the budget remembers.

    Attributes:
        inner: state of the wrapped transformation.
        step: [] int32, how many updates were made.
        sensitivity, uncertainty: {path: array}, smoothed, of every leaf of P, values and Q.
        within: [kernels, rank] bool, the triplets within the budget at the last ranking.
    """

    inner: optax.OptState
    step: jax.Array
    sensitivity: dict[str, jax.Array]
    uncertainty: dict[str, jax.Array]
    within: jax.Array


def rank_budget(
    tx: optax.GradientTransformation,
    num_steps: int,
    *,
    target_rank: float = 8,
    warm_up: int = 0,
    cool_down: int = 0,
    every: int = 1,
    sensitivity_decay: float = 0.85,
    uncertainty_decay: float = 0.85,
) -> optax.GradientTransformation:
    """`tx`, then the values of the least important triplets set to 0; Algorithm 1.

    Of a leaf w with gradient g the sensitivity |w g| and its uncertainty are smoothed, Eq. 9 and
    10, and their product is the importance of an entry. That of triplet i is the value's, plus the
    means of those of column i of P and row i of Q, Eq. 8. Over all kernels the `budget(step)` most
    important triplets keep their updated values and the others' become 0, every so many steps;
    until the next ranking they are updated like the others, and may come back. From `num_steps -
    cool_down` on what is kept stays kept, and the rest 0.

    Here w is the parameter at which g was computed (the authors' code takes it after the update),
    and g contains the regulariser's gradient, if the loss does.

    Args:
        tx: the optimizer of a group that holds AdaLoRA's parameters, and may hold others.
        num_steps: of the stage.
        target_rank: of a kernel at the end, on average.
        warm_up: steps in which every triplet is kept.
        cool_down: steps at the end in which what is kept stays the same.
        every: steps between rankings.
        sensitivity_decay, uncertainty_decay: beta_1 and beta_2 in [0, 1).

    Raises:
        ValueError: warm-up and cool-down leave no step; from `init`: nothing of AdaLoRA's in the
            group, kernels of different rank, or a target above the rank.
    """
    last = num_steps - cool_down
    if not 0 <= warm_up < last:
        raise ValueError(
            f"warm_up={warm_up} and cool_down={cool_down} leave no step of {num_steps} in which "
            "the budget shrinks."
        )

    def init(params: optax.Params) -> BudgetState:
        flat, kernels = paths.flatten(params), triplets(params)
        ranks = {kernel: flat[f"{kernel}/values"].shape[-1] for kernel in kernels}
        if len(set(ranks.values())) != 1 or target_rank > max(ranks.values()):
            raise ValueError(
                f"a budget of rank {target_rank} needs AdaLoRA kernels of one rank, at least that; "
                f"got {ranks or 'none'}."
            )
        zeros = {
            f"{kernel}/{leaf}": jnp.zeros_like(flat[f"{kernel}/{leaf}"])
            for kernel in kernels
            for leaf in TRIPLET
        }
        within = jnp.ones((len(kernels), max(ranks.values())), bool)
        return BudgetState(tx.init(params), jnp.int32(0), zeros, dict(zeros), within)

    def update(
        grads: optax.Updates,
        state: BudgetState,
        params: optax.Params | None = None,
        **extra: Any,
    ):
        updates, inner = optax.with_extra_args_support(tx).update(
            grads, state.inner, params, **extra
        )
        flat, gradients, changes = (paths.flatten(tree) for tree in (params, grads, updates))
        sensitivity, uncertainty = {}, {}
        for path in state.sensitivity:
            now = jnp.abs(flat[path] * gradients[path])
            smooth = optax.incremental_update(now, state.sensitivity[path], 1 - sensitivity_decay)
            gap = jnp.abs(now - smooth)
            sensitivity[path] = smooth
            uncertainty[path] = optax.incremental_update(
                gap, state.uncertainty[path], 1 - uncertainty_decay
            )
        kernels = triplets(params)
        scores = jnp.stack([importance(sensitivity, uncertainty, kernel) for kernel in kernels])
        allowed = budget(state.step, scores.size, target_rank * len(kernels), warm_up, last)
        order = jnp.argsort(-scores.ravel())
        best = jnp.argsort(order).reshape(scores.shape) < allowed
        shrinking = (state.step >= warm_up) & (state.step < last) & (state.step % every == 0)
        ranking = shrinking | (state.step == last)
        within = jnp.where(ranking, best, state.within)
        pruning = ranking | (state.step > last)
        for i, kernel in enumerate(kernels):
            path = f"{kernel}/values"
            changes[path] = jnp.where(pruning & ~within[i], -flat[path], changes[path])
        state = BudgetState(inner, state.step + 1, sensitivity, uncertainty, within)
        return paths.nest(changes), state

    return optax.GradientTransformationExtraArgs(init, update)


def budget(step: jax.Array, initial: float, target: float, warm_up: int, last: int) -> jax.Array:
    """How many triplets are kept at a step: Eq. 12, a cubic from `initial` down to `target`.

    Args:
        step: [] int.
        initial, target: numbers of triplets over all kernels.
        warm_up: the step until which it is `initial`.
        last: the step from which on it is `target`.

    Returns:
        [] int32, rounded down.
    """
    rest = 1 - jnp.clip((step - warm_up) / (last - warm_up), 0, 1)
    return jnp.floor(target + (initial - target) * rest**3).astype(jnp.int32)


def importance(
    sensitivity: dict[str, jax.Array], uncertainty: dict[str, jax.Array], kernel: str
) -> jax.Array:
    """[rank], of the triplets of one kernel; Eq. 8."""
    p, values, q = (sensitivity[f"{kernel}/{x}"] * uncertainty[f"{kernel}/{x}"] for x in TRIPLET)
    return values + p.mean(0) + q.mean(1)
