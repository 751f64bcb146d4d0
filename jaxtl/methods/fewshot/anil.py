"""ANIL: MAML whose inner loop adapts the head only."""

import dataclasses
from typing import Annotated

import optax

from jaxtl.form import AT_LEAST_0, checked
from jaxtl.methods.fewshot.maml import maml
from jaxtl.plan import Learner


@checked
def anil(
    inner: optax.GradientTransformation,
    *,
    num_steps: Annotated[int, AT_LEAST_0] = 1,
    eval_steps: Annotated[int, AT_LEAST_0] | None = None,
    first_order: bool = False,
    remat: bool = False,
    transductive: bool = False,
) -> Learner:
    """`maml` with patterns ("heads/.*",): theta = (backbone, head), a grad L_support of the head.

    The backbone is applied once an episode, so that inner steps cost next to nothing; it trains in
    the outer loop. `maml` with other patterns freezes other layers: ("backbone/.*",) is BOIL (Oh et
    al., 2021, arXiv:2008.08882).

    Args:
        inner, num_steps, eval_steps, first_order, remat: as in `maml`.

    Raghu et al., "Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of
    MAML", ICLR 2020. arXiv:1909.09157, Section 4.
    """
    learner = maml(
        inner,
        num_steps=num_steps,
        eval_steps=eval_steps,
        patterns=("heads/.*",),
        first_order=first_order,
        remat=remat,
        transductive=transductive,
    )
    return dataclasses.replace(learner, name="ANIL")
