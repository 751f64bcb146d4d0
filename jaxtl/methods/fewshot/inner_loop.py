"""An inner loop: what trains on the support of one episode before its queries are answered."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import optax

from jaxtl.losses import weighted_losses
from jaxtl.methods.fewshot.reading import among_present, head_of, weighted_mean
from jaxtl.models import fixed_block
from jaxtl.paths import flatten, join, select, split
from jaxtl.plan import Examples, Model, Params, State, Statistics

UNROLLED = 5
"""Inner steps up to which a loop is written out that keeps its activations."""


class Adaptation(NamedTuple):
    """One episode, ready for an inner loop.

    Attributes:
        fast: parameters that the loop changes, nested by path.
        loss: (fast, rng) -> [] mean loss of the support.
        answer: (fast) -> (logits of the queries, batch statistics).
    """

    fast: Params
    loss: Callable[[Params, jax.Array], jax.Array]
    answer: Callable[[Params], tuple[jax.Array, Statistics]]


def adaptation(
    model: Model,
    params: Params,
    state: State,
    support: Examples,
    queries: Examples,
    *,
    patterns: Sequence[str],
    ways: int,
    rng: jax.Array,
    live: bool,
    rows: int | None = None,
) -> Adaptation:
    """What an inner loop needs of an episode.

    Blocks before the first that the loop changes are applied once, not once a step.

    Args:
        patterns: path patterns of what the loop changes; the rest of the parameters is constant in
            it and trains in the outer loop only.
        live: the support is normalised by its own statistics, the queries by theirs. Those of the
            queries move the running ones, which the loop leaves alone.
        rows: of the support that the loss reads, drawn for each key; all if None.

    Raises:
        ValueError: a pattern matches no parameter of the model.
    """
    chosen = select(patterns, adaptable(model, flatten(params)))
    fast, slow = split(params, chosen.__contains__)
    block = fixed_block(model, chosen)
    first, rest = (None, model) if block is None else model.cut(block)
    head, shots_rng, query_rng = head_of(model), *jax.random.split(rng)
    statistics = state.statistics

    def begin(inputs, key):
        if first is None:
            return inputs, statistics
        output, moved = first.apply(params, statistics, inputs, rng=key, train=live)
        return output["features"], moved

    support_inputs, _ = begin(support.inputs, shots_rng)
    query_inputs, moved = begin(queries.inputs, query_rng)

    def finish(fast, statistics, inputs, key):
        output, moved = rest.apply(join(fast, slow), statistics, inputs, rng=key, train=live)
        (logits,) = output["logits"].values()
        return logits[:, :ways], moved

    def loss(fast, key):
        key, draw_key = jax.random.split(key)
        part = support._replace(inputs=support_inputs)
        if rows is not None and rows < len(support.labels):
            index = _draw(draw_key, support.weights, rows)
            part = jax.tree.map(lambda leaf: leaf[index], part)
        logits, _ = finish(fast, statistics, part.inputs, key)
        if head.integer:
            logits = among_present(logits, support, ways)
        losses = weighted_losses(head, logits, part.labels, _is_present(part))
        return weighted_mean(losses, part.weights)

    def answer(fast):
        logits, finished = finish(fast, moved, query_inputs, query_rng)
        if head.integer:
            logits = among_present(logits, support, ways)
        return logits, finished

    return Adaptation(fast, loss, answer)


def descend(
    task: Adaptation,
    inner: optax.GradientTransformation,
    num_steps: int,
    *,
    rng: jax.Array,
    first_order: bool = False,
    remat: bool = False,
) -> Params:
    """The fast parameters after some steps on the mean loss of the support.

    Args:
        inner: of these steps; its state begins anew in each episode.
        first_order: gradients of the steps are constants of the outer gradient.
        remat: each step is computed again in the backward pass, so that only the fast parameters of
            each are kept, not its activations.
    """

    def step(carry, key):
        fast, opt_state = carry
        gradient = jax.grad(task.loss)(fast, key)
        if first_order:
            gradient = jax.lax.stop_gradient(gradient)
        updates, opt_state = inner.update(gradient, opt_state, fast)
        return (optax.apply_updates(fast, updates), opt_state), None

    carry = task.fast, inner.init(task.fast)
    keys = jax.random.split(rng, num_steps)
    body = jax.checkpoint(step, prevent_cse=False) if remat else step
    # A CPU computes the convolutions of a loop on one core, so short ones are written out; but of
    # steps that are written out its scheduler keeps all that was to be computed again.
    (fast, _), _ = jax.lax.scan(body, carry, keys, unroll=num_steps <= UNROLLED and not remat)
    return fast


def adaptable(model: Model, params: dict[str, jax.Array] | Sequence[str]) -> list[str]:
    """Those of the paths that are the model's: its backbone, its adapters and its one head."""
    rooms = "|".join(re.escape(adapter.name) for adapter in model.adapters)
    heads = "|".join(map(re.escape, model.heads))
    own = re.compile(f"(backbone|heads/({heads}){'|' + rooms if rooms else ''})/.*")
    return [path for path in params if own.fullmatch(path)]


def _is_present(examples: Examples) -> jax.Array:
    return (examples.weights > 0).astype(examples.weights.dtype)


def _draw(key: jax.Array, weights: jax.Array, rows: int) -> jax.Array:
    """Different rows [rows], padding last."""
    order = jax.random.uniform(key, weights.shape) + (weights > 0)
    return jax.lax.top_k(order, rows)[1]
