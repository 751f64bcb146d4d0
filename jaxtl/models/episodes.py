"""What a learner says about the queries of many episodes, side by side in one program."""

import dataclasses
import itertools
from collections.abc import Collection

import jax
import jax.numpy as jnp

from jaxtl.paths import unknown
from jaxtl.plan import Batch, Examples, Learner, Model, Params, State, Statistics


def episode_logits(
    learner: Learner,
    model: Model,
    params: Params,
    state: State,
    batch: Batch,
    *,
    ways: int | None = None,
    rng: jax.Array,
    train: bool,
) -> tuple[jax.Array, Statistics]:
    """The learner's answers, every episode by itself.

    Episodes are mapped with `jax.vmap`: layers whose parameters all of them share see one large
    batch.

    Args:
        model, params, state: of one seed; the model may have other heads too.
        batch: of [tasks, rows], with one head; `roles` says which rows are support and which are
            queries, `present` which are padding. The learner does not see the labels of queries.
        ways: most classes of an episode; the size of the head if None. Classes that no episode
            has are such without support.
        rng: each task gets a key of its own.
        train: as in `Learner`.

    Returns:
        (logits [tasks, queries, ways], batch statistics: the mean of what the tasks made of them).

    Raises:
        ValueError: the batch is none of episodes, has several heads, or one that is too small.
    """
    name, shots = episode_head(model, batch), batch.roles.count("support")
    head = model.heads[name]
    ways = head.size if ways is None else ways
    if ways > head.size:
        raise ValueError(
            f"episodes of {ways} classes need a head of as many; head {name!r} has {head.size} "
            f"outputs: classes({ways})"
        )
    alone = dataclasses.replace(model, heads={name: head})

    def answer(inputs, labels, weights, rng):
        support = jax.tree.map(lambda leaf: leaf[:shots], Examples(inputs, labels, weights))
        inputs = jax.tree.map(lambda leaf: leaf[shots:], inputs)
        hidden = jnp.full_like(labels[shots:], head.missing)
        queries = Examples(inputs, hidden, weights[shots:])
        logits, statistics = learner.predict(
            alone, params, state, support, queries, ways=ways, rng=rng, train=train
        )
        return logits, jax.tree.map(jnp.subtract, statistics, state.statistics)

    rngs = jax.random.split(rng, len(batch.present))
    logits, changes = jax.vmap(answer)(batch.inputs, batch.labels[name], batch.present, rngs)
    # What no task changed stays as it is, to the bit: a mean of equal numbers may round.
    changes = jax.tree.map(lambda leaf: leaf.mean(0), changes)
    return logits, jax.tree.map(jnp.add, state.statistics, changes)


def fixed_block(model: Model, changed: Collection[str]) -> str | None:
    """The last block before the first that an inner loop changes; None if there is none.

    Args:
        changed: paths of the parameters that it changes, if any.
    """
    # What an adapter changes is not told by the paths of its parameters.
    if changed and model.adapters:
        return None
    before = itertools.takewhile(
        lambda block: not any(path.startswith(f"backbone/{block}/") for path in changed),
        model.blocks,
    )
    return next(reversed([*before]), None)


def episode_head(model: Model, batch: Batch) -> str:
    """The head of a batch of episodes.

    Raises:
        ValueError: the batch is none of episodes, has several heads, or one the model lacks.
    """
    shots = batch.roles.count("support")
    if batch.roles != ("support",) * shots + ("query",) * (len(batch.roles) - shots):
        raise ValueError(
            "learners read episodes, rows of support and then queries; the domains of this stage "
            f"are {', '.join(batch.roles)}: episodes(dataset, head, ways=, shots=, queries=) is "
            "what it needs"
        )
    if len(batch.labels) != 1:
        raise ValueError(f"episodes have one head; these name {', '.join(sorted(batch.labels))}")
    (name,) = batch.labels
    if name not in model.heads:
        raise ValueError(unknown("head", name, model.heads))
    return name
