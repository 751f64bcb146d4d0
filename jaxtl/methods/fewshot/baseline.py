"""Baseline: a frozen backbone with a fresh linear head, trained on the support."""

import dataclasses
from typing import Annotated

import optax

from jaxtl.form import AT_LEAST_0, AT_LEAST_1, checked
from jaxtl.methods.fewshot.fine_tuning import fine_tuning
from jaxtl.plan import Learner


@checked
def baseline(
    inner: optax.GradientTransformation,
    *,
    num_steps: Annotated[int, AT_LEAST_0] = 100,
    rows: Annotated[int, AT_LEAST_1] | None = None,
    transductive: bool = False,
) -> Learner:
    """`fine_tuning` of a fresh head: W' f(x) + b, fitted to the support; the backbone stays.

    The features are computed once an episode. The head starts from zeros, where the paper draws it;
    the loss is convex, so that only the number of steps decides what becomes of the start.

    Args:
        inner: the paper's is `optax.sgd(0.01, momentum=0.9)` with decay 1e-3, on 4 `rows`.
        rows: as in `fine_tuning`.

    Chen et al., "A Closer Look at Few-shot Classification", ICLR 2019. arXiv:1904.04232.
    """
    learner = fine_tuning(
        inner, num_steps=num_steps, patterns=("heads/.*",), rows=rows, transductive=transductive
    )
    return dataclasses.replace(learner, name="Baseline")
