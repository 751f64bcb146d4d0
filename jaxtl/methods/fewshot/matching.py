"""Matching networks: a query is answered by attention over the labels of the support."""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from jaxtl.form import POSITIVE, checked
from jaxtl.methods.fewshot import scale as scales
from jaxtl.methods.fewshot.reading import (
    among_present,
    both_features,
    check_classes,
    cosine,
    memberships,
)
from jaxtl.plan import Learner


@checked
def matching(
    similarity: Callable[[jax.Array, jax.Array], jax.Array] = cosine,
    *,
    scale: Annotated[float, POSITIVE] = 1.0,
    learn_scale: bool = False,
    transductive: bool = False,
) -> Learner:
    """Logits log p(y | x), p = sum_i a(x, x_i) [y_i = y], a the softmax of the similarities.

    Eq. 1 of the paper with its cosine of Section 2.1.1. A cosine is at most 1, so that without a
    larger scale the attention stays nearly even; `squared_euclidean` does better in public code. An
    example of weight w counts as w of them.

    Args:
        similarity, scale, learn_scale: as in `prototypical`.

    Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016. arXiv:1606.04080.
    """

    def predict(model, params, state, support, queries, *, ways, rng, train):
        check_classes(model, "matching")
        of_support, of_queries, statistics = both_features(
            model, params, state, support, queries, rng=rng, live=train or transductive
        )
        scores = scales.factor(params, scale, learn_scale) * similarity(of_queries, of_support)
        members = memberships(support, ways).astype(scores.dtype)
        least = jnp.finfo(scores.dtype)
        # In logarithms: far from all of the support the sum itself would be 0.
        weighted = scores[:, :, None] + jnp.log(jnp.maximum(members, least.tiny))[None]
        weighted = jnp.where(members[None] > 0, weighted, least.min / 4)
        logits = jax.nn.logsumexp(weighted, 1)
        logits = logits - jax.nn.logsumexp(logits, 1, keepdims=True)
        return among_present(logits, support, ways), statistics

    return Learner("matching", predict, scales.modules(scale, learn_scale), transductive, ())
