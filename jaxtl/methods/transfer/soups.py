"""Averages of parameters after training: interpolation, uniform and greedy soups.

Batch statistics that belong to an average are not the average of the statistics: see
`refresh_statistics`.
"""

from collections.abc import Callable, Sequence

import jax

from jaxtl.plan import Params


def interpolate(source: Params, target: Params, alpha: float) -> Params:
    """source + alpha (target - source), leaf by leaf; exactly the source where they are equal."""
    return jax.tree.map(lambda a, b: a + alpha * (b - a), source, target)


def uniform_soup(members: Sequence[Params]) -> Params:
    """The mean of the parameters of several models.

    Raises:
        ValueError: there are none.

    Wortsman et al., "Model soups", ICML 2022. arXiv:2203.05482.
    """
    if not members:
        raise ValueError("a soup needs at least one member")
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *members)


def greedy_soup(
    members: Sequence[Params], score: Callable[[Params], float]
) -> tuple[Params, list[int]]:
    """The mean of those that help: from the best member on, each joins unless the score falls.

    Args:
        members: trees of one structure.
        score: parameters -> float, higher is better, on validation data.

    Returns:
        (the soup, the members in it by their numbers, the best first).

    Raises:
        ValueError: there are no members.

    Wortsman et al., "Model soups", ICML 2022. arXiv:2203.05482, Recipe 1.
    """
    scores = [score(member) for member in members]
    order = sorted(range(len(members)), key=lambda i: -scores[i])
    chosen, best = order[:1], max(scores, default=0.0)
    soup = uniform_soup([members[i] for i in chosen])
    for i in order[1:]:
        wider = uniform_soup([members[j] for j in (*chosen, i)])
        if (value := score(wider)) >= best:
            soup, chosen, best = wider, [*chosen, i], value
    return soup, chosen
