"""Ways of adapting that are several stages: linear probing first, gradual unfreezing."""

import dataclasses
from collections.abc import Sequence

import optax

from jaxtl.methods.transfer.fine_tuning import grouped, probe
from jaxtl.plan import Stage


def linear_probe_then_fine_tune(
    stage: Stage, tx: optax.GradientTransformation, probe_steps: int
) -> list[Stage]:
    """LP-FT: train the heads on frozen features, then `stage` from there.

    A random head distorts good features in its first steps; a fitted one does not.

    Args:
        stage: the fine-tuning; its fresh parameters become those of the probe.
        tx: of the probe.
        probe_steps: steps of the probe, on top of the stage's own.

    Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
    Out-of-Distribution", ICLR 2022. arXiv:2202.10054.
    """
    first = dataclasses.replace(
        stage, name=f"{stage.name}_probe", method=probe(tx), num_steps=probe_steps
    )
    return [first, dataclasses.replace(stage, fresh=())]


def gradual_unfreezing(
    stage: Stage, tx: optax.GradientTransformation, order: Sequence[Sequence[str]]
) -> list[Stage]:
    """Train the last layers first and thaw one group more in each of `len(order)` equal parts.

    Args:
        stage: gives the name, model, domains, batch size, fresh patterns and the number of steps of
            the whole chain; its method is replaced by the supervised objective.
        tx: its state starts anew in each part.
        order: groups of path patterns, in the order in which they thaw.

    Howard & Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018.
    arXiv:1801.06146, Section 3.3; there a group thaws after each epoch.
    """
    parts, thawed = [], ()
    for i, patterns in enumerate(order):
        thawed = (*thawed, *patterns)
        begin, end = (stage.num_steps * j // len(order) for j in (i, i + 1))
        part = dataclasses.replace(
            stage,
            name=f"{stage.name}_{i}",
            method=grouped({"all": (thawed, tx)}),
            num_steps=end - begin,
            fresh=stage.fresh if i == 0 else (),
        )
        parts.append(part)
    return parts
