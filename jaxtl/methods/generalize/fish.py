"""Fish: steps through one domain after the other go where their gradients agree."""

from collections.abc import Mapping
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import POSITIVE, Patterns, checked
from jaxtl.losses import supervised
from jaxtl.methods.generalize.sources import source_positions
from jaxtl.methods.transfer.fine_tuning import trained_paths
from jaxtl.models import apply_flat
from jaxtl.paths import flatten, join, split
from jaxtl.plan import Method, Model, Params, StageShape, State, Statistics, Update


@checked
def fish(
    inner: optax.GradientTransformation,
    *,
    meta_step: Annotated[float, POSITIVE] = 0.5,
    trainable: Patterns = (".*",),
) -> Method:
    """theta + meta_step * (theta' - theta), theta' after one inner step on each source in turn.

    The order of the sources is drawn for every step. No gradient goes through the inner steps: to
    first order theta' - theta follows the sum of the gradients and of their inner products (the
    paper's Theorem 3.1), with which domains agree. The state of `inner` goes on from step to step,
    as in public code; a domain without labels is no source. The loss that is logged is the sum over
    the sources, each at the point where its step begins; batch statistics follow that path.

    Args:
        inner: of the inner steps, such as `optax.adam(1e-3)` or, as in the paper's Algorithm 1,
            `optax.sgd(rate)`.
        meta_step: the paper's epsilon.
        trainable: path patterns of what trains.

    Raises:
        ValueError: the stage has fewer than two sources.

    Shi et al., "Gradient Matching for Domain Generalization", ICLR 2022. arXiv:2104.09937,
    Algorithm 1.
    """
    groups = {"all": (tuple(trainable), optax.sgd(meta_step))}

    def moving(params: Params, heads: Mapping[str, object]) -> tuple[Params, Params]:
        return split(params, trained_paths(groups, params, heads=heads).__contains__)

    def initial(model: Model, params: Params, statistics: Statistics, shape: StageShape):
        return inner.init(moving(params, shape.classes)[0])

    def loss_fn(model, params, state, batch, rng, step):
        sources = source_positions(batch.roles)
        theta, frozen = jax.lax.stop_gradient(moving(params, batch.labels))

        def domain_loss(fast: Params, statistics: Statistics, position: jax.Array, key: jax.Array):
            domain = jax.tree.map(
                lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, position, 1, 1), batch
            ).replace(roles=("source",))
            output, after = apply_flat(
                model, join(fast, frozen), State(statistics), domain.inputs, rng=key, train=True
            )
            loss, _ = supervised(model.heads, output["logits"], domain)
            return loss, after.statistics

        def visit(carry, position_and_key):
            fast, opt_state, statistics = carry
            (loss, statistics), gradient = jax.value_and_grad(domain_loss, has_aux=True)(
                fast, statistics, *position_and_key
            )
            updates, opt_state = inner.update(gradient, opt_state, fast)
            return (optax.apply_updates(fast, updates), opt_state, statistics), loss

        order_key, rng = jax.random.split(rng)
        visits = (
            jax.random.permutation(order_key, jnp.array(sources)),
            jax.random.split(rng, len(sources)),
        )
        (fast, opt_state, statistics), losses = jax.lax.scan(
            visit, (theta, state.method, state.statistics), visits
        )
        # Linear in theta: its gradient is theta - theta', its value is not wanted.
        change = flatten(jax.tree.map(jnp.subtract, theta, fast))
        leaves = flatten(params)
        slope = sum(jnp.vdot(leaves[path], leaf) for path, leaf in change.items())
        loss = losses.sum() + slope - jax.lax.stop_gradient(slope)
        return loss, (State(statistics, opt_state), {})

    return Method(groups, (Update(loss_fn),), state=initial)
