"""Meta-SGD: MAML that learns a rate for each parameter as well."""

from collections.abc import Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import AT_LEAST_0, FINITE, checked
from jaxtl.methods.fewshot.inner_loop import adaptation, descend
from jaxtl.paths import nest, select
from jaxtl.plan import Learner, Module


@checked
def meta_sgd(
    start: Annotated[float, FINITE] = 0.01,
    *,
    num_steps: Annotated[int, AT_LEAST_0] = 1,
    eval_steps: Annotated[int, AT_LEAST_0] | None = None,
    patterns: Sequence[str] = (".*",),
    first_order: bool = False,
    remat: bool = False,
    transductive: bool = False,
) -> Learner:
    """Answers with theta - a * grad L_support(theta), elementwise; training learns theta and a.

    The rates are parameters, `rates/<path>`, one for each number that the inner loop changes; they
    may become negative. All begin with `start`, where the paper draws them between 0.005 and 0.1;
    of several steps each takes the same rates.

    Args:
        start: the rates before training.
        num_steps, eval_steps, patterns, first_order, remat: as explained in the room.

    Li et al., "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning", 2017. arXiv:1707.09835,
    Eq. 5.
    """
    later_steps = num_steps if eval_steps is None else eval_steps

    def init(rng, output, shape):
        heads = tuple(f"heads/{name}/" for name in shape.classes)
        paths = [p for p in shape.parameters if p.startswith(heads) or not p.startswith("heads/")]
        return nest(
            {path: jnp.full(shape.parameters[path], start) for path in select(patterns, paths)}
        )

    def predict(model, params, state, support, queries, *, ways, rng, train):
        rates = params["rates"]
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
        inner = optax.stateless(
            lambda gradient, _: jax.tree.map(lambda rate, g: -rate * g, rates, gradient)
        )
        steps = num_steps if train else later_steps
        fast = descend(task, inner, steps, rng=rng, first_order=first_order, remat=remat)
        return task.answer(fast)

    def apply(rates, gradient):
        return jax.tree.map(jnp.multiply, rates, gradient)

    return Learner(
        "Meta-SGD", predict, {"rates": Module(init, apply)}, transductive, tuple(patterns)
    )
