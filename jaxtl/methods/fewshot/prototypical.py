"""Prototypical networks: a class is the mean of its support."""

from collections.abc import Callable
from typing import Annotated

import jax

from jaxtl.form import POSITIVE, checked
from jaxtl.methods.fewshot import scale as scales
from jaxtl.methods.fewshot.reading import (
    among_present,
    both_features,
    check_classes,
    class_means,
    squared_euclidean,
)
from jaxtl.plan import Learner


@checked
def prototypical(
    similarity: Callable[[jax.Array, jax.Array], jax.Array] = squared_euclidean,
    *,
    scale: Annotated[float, POSITIVE] = 1.0,
    learn_scale: bool = False,
    transductive: bool = False,
) -> Learner:
    """Logits scale * s(f(x), c_k), c_k the mean of f over the support of class k.

    With the paper's s, -|f - c|^2, they are its Eq. 2; with `cosine` a scale of about 10 lets the
    softmax be sure (Gidaris & Komodakis, 2018, arXiv:1804.09458, learn it from there).

    Args:
        similarity: (rows [n, features], others [m, features]) -> [n, m]: `squared_euclidean` or
            `cosine`.
        scale: factor of the similarities, or its start if it is learned.
        learn_scale: it trains, as `scale/factor`.

    Snell et al., "Prototypical Networks for Few-shot Learning", NeurIPS 2017. arXiv:1703.05175.
    """

    def predict(model, params, state, support, queries, *, ways, rng, train):
        check_classes(model, "prototypical")
        of_support, of_queries, statistics = both_features(
            model, params, state, support, queries, rng=rng, live=train or transductive
        )
        prototypes = class_means(of_support, support, ways)
        logits = scales.factor(params, scale, learn_scale) * similarity(of_queries, prototypes)
        return among_present(logits, support, ways), statistics

    return Learner("prototypical", predict, scales.modules(scale, learn_scale), transductive, ())
