"""How much each channel of a block matters for the labels of a stage: DELTA's attention."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.losses import supervised
from jaxtl.methods.transfer.closed_form import logistic, ridge
from jaxtl.models import to_float
from jaxtl.plan import Batch, Columns, Model, Params, State
from jaxtl.plan.batch import make_batch

CHUNK = 32
"""Examples that run at once."""


def channel_attention(
    model: Model,
    params: Params,
    state: State,
    domains: list[Columns],
    blocks: Mapping[str, int],
    examples: int,
    temperature: float,
) -> dict[str, np.ndarray]:
    """softmax over channels of the mean rise of the loss when the block's channel is set to 0.

    The features are those that the stage starts from, in evaluation mode; its heads are solved on
    them first (`logistic`, or `ridge` for numbers), where the paper trains one by gradients. The
    channel is that of the block's output, where public code zeroes the filter of its last
    convolution; public code also standardises the rises and divides them by 5.

    The cost is that of one forward pass per channel from the block on, for each of the examples:
    (sum of channels) * examples, `CHUNK` examples at once.

    Args:
        model, params, state, domains: as `Method.prepare` gets them.
        blocks: only its keys matter.
        examples: most examples, evenly spaced among those with a label.
        temperature: > 0, divides the rises.

    Returns:
        {block: [channels] float32 of sum 1}.

    Raises:
        ValueError: no domain has labels, or the output of a block is not one array.
    """
    params = _with_solved_heads(model, params, state, domains)
    chosen = _chosen(domains, examples)
    found = {}
    for block in blocks:
        rises, count = 0.0, 0
        for domain, rows in zip(domains, chosen, strict=True):
            for i in range(0, len(rows), CHUNK):
                part = rows[i : i + CHUNK]
                filled = np.pad(part, (0, CHUNK - len(part)), "edge")
                seen = np.arange(CHUNK) < len(part)
                inputs = jax.tree.map(lambda leaf, r=filled: leaf[r][:, None], domain.inputs)
                labels = {h: v[filled][:, None] for h, v in domain.labels.items()}
                weights = {
                    h: np.where(np.expand_dims(seen, tuple(range(1, v.ndim))), v[filled], 0)[
                        :, None
                    ]
                    for h, v in domain.weights.items()
                }
                batch = make_batch(inputs, labels, weights)
                rises += CHUNK * np.asarray(_rises(block, model, params, state, batch), np.float64)
                count += len(part)
        logits = rises / count / temperature
        found[block] = np.exp(logits - np.logaddexp.reduce(logits)).astype(np.float32)
    return found


@partial(jax.jit, static_argnums=(0, 1))
def _rises(block: str, model: Model, params: Params, state: State, batch: Batch) -> jax.Array:
    """[channels], how much the mean loss is higher without each of them."""
    first, rest = model.cut(block)
    inputs = jax.tree.map(lambda leaf: leaf[:, 0], batch.inputs)
    hidden = first.apply(params, state.statistics, to_float(inputs))[0]["features"]
    if not isinstance(hidden, jax.Array):
        raise ValueError(f"block {block!r} has a {type(hidden).__name__} as output, not an array.")

    def loss(hidden: jax.Array) -> jax.Array:
        logits = rest.apply(params, state.statistics, hidden)[0]["logits"]
        return supervised(rest.heads, jax.tree.map(lambda z: z[:, None], logits), batch)[0]

    def without(channel: jax.Array) -> jax.Array:
        return loss(hidden.at[..., channel].set(0))

    return jax.lax.map(without, jnp.arange(hidden.shape[-1])) - loss(hidden)


def _with_solved_heads(
    model: Model, params: Params, state: State, domains: list[Columns]
) -> Params:
    known = {head for d in domains for head, w in d.weights.items() if (w > 0).any()}
    if not known:
        raise ValueError("the attention of channels needs labels, and no domain has any.")
    solvers: dict[Callable, list[str]] = {}
    for head in sorted(known):
        solver = logistic if model.heads[head].integer else ridge
        solvers.setdefault(solver, []).append(f"heads/{head}/.*")
    for solver, heads in solvers.items():
        params, _ = solver(heads=heads).prepare(model, params, state, domains)
    return params


def _chosen(domains: list[Columns], examples: int) -> list[np.ndarray]:
    """[domains] rows, evenly spaced among all with a label."""
    rows = [
        np.flatnonzero(np.any([(w > 0).reshape(len(w), -1).any(1) for w in d.weights.values()], 0))
        for d in domains
    ]
    total = sum(map(len, rows))
    places = np.arange(min(total, examples)) * total // min(total, examples)
    ends = np.cumsum([0, *map(len, rows)])
    return [
        own[places[(places >= begin) & (places < end)] - begin]
        for own, (begin, end) in zip(rows, pairwise(ends), strict=True)
    ]
