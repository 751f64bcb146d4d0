"""The sources of a batch, and what a head makes of features that a method has changed."""

from collections.abc import Sequence

import jax

from jaxtl.plan import Params
from jaxtl.plan.batch import Role


def source_positions(roles: Sequence[Role]) -> tuple[int, ...]:
    """Positions of the sources among the domains of a stage.

    Raises:
        ValueError: there are fewer than two.
    """
    sources = tuple(d for d, role in enumerate(roles) if role == "source")
    if len(sources) < 2:
        raise ValueError(
            f"generalising over domains needs two sources or more, and of the {len(roles)} domains "
            f"here ({', '.join(roles)}) {len(sources)} is one: name several labelled(data, head), "
            "or train with transfer.full"
        )
    return sources


def head_logits(params: Params, name: str, features: jax.Array) -> jax.Array:
    """Logits [batch, domains, size] of a model's head on features [batch, domains, width]."""
    head = params["heads"][name]
    return features @ head["kernel"] + head["bias"][None, None]
