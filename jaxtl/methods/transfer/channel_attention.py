"""How much each channel of a block matters for the labels of a stage: DELTA's attention."""

from collections.abc import Iterable
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
    blocks: Iterable[str],
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
        blocks: names.
        examples: most examples, evenly spaced among those with a label.
        temperature: > 0, divides the rises.

    Returns:
        {block: [channels] float32 of sum 1}.

    Raises:
        ValueError: no domain has labels, or the output of a block is not one array.
    """
    heads = {head for d in domains for head, w in d.weights.items() if (w > 0).any()}
    if not heads:
        raise ValueError("the attention of channels needs labels, and no domain has any.")
    for solver, integer in ((logistic, True), (ridge, False)):
        patterns = [f"heads/{h}/.*" for h in sorted(heads) if model.heads[h].integer == integer]
        if patterns:
            params, _ = solver(heads=patterns).prepare(model, params, state, domains)
    chunks = [
        _chunk(domain, rows[i : i + CHUNK])
        for domain, rows in zip(domains, _spaced_rows(domains, examples), strict=True)
        for i in range(0, len(rows), CHUNK)
    ]
    count = sum(size for _, size in chunks)
    attention = {}
    for block in blocks:
        rises = 0.0
        for batch, _ in chunks:
            rises += CHUNK * np.asarray(_rises(block, model, params, state, batch), np.float64)
        logits = rises / count / temperature
        attention[block] = np.exp(logits - np.logaddexp.reduce(logits)).astype(np.float32)
    return attention


def _chunk(domain: Columns, rows: np.ndarray) -> tuple[Batch, int]:
    """(a batch of `CHUNK` examples, how many of them are there; the others have weight 0)."""
    size = len(rows)
    rows = np.pad(rows, (0, CHUNK - size), "edge")

    def take(leaf: np.ndarray) -> np.ndarray:
        return leaf[rows][:, None]

    weights = jax.tree.map(take, domain.weights)
    for leaf in weights.values():
        leaf[size:] = 0
    inputs, labels = jax.tree.map(take, (domain.inputs, domain.labels))
    return make_batch(inputs, labels, weights), size


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

    def loss_without(channel: jax.Array) -> jax.Array:
        return loss(hidden.at[..., channel].set(0))

    return jax.lax.map(loss_without, jnp.arange(hidden.shape[-1])) - loss(hidden)


def _spaced_rows(domains: list[Columns], examples: int) -> list[np.ndarray]:
    """[domains] rows, evenly spaced among all with a label."""
    labelled = [
        np.flatnonzero(np.any([(w > 0).reshape(len(w), -1).any(1) for w in d.weights.values()], 0))
        for d in domains
    ]
    ends = np.cumsum([0, *map(len, labelled)])
    count = min(ends[-1], examples)
    places = np.arange(count) * ends[-1] // count
    return [
        rows[places[(places >= begin) & (places < end)] - begin]
        for rows, (begin, end) in zip(labelled, pairwise(ends), strict=True)
    ]
