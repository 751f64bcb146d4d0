"""What a domain looks like on average, for methods that tell the model."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.methods.generalize.sources import source_positions
from jaxtl.plan import Batch, PyTree
from jaxtl.plan.batch import Role


def meant_domains(roles: tuple[Role, ...]) -> list[int]:
    """Positions of the domains that evaluation is about: the targets, or all if there are none.

    Raises:
        ValueError: there are fewer than two sources.
    """
    source_positions(roles)
    targets = [d for d, role in enumerate(roles) if role == "target"]
    return targets or list(range(len(roles)))


def domain_means(values: jax.Array, present: jax.Array) -> jax.Array:
    """Means [domains, ...] of [batch, domains, ...] by weights [batch, domains]; 0 without any."""
    weights = jnp.expand_dims(present, tuple(range(2, values.ndim)))
    total = weights.sum(0)
    sums = jnp.where(weights > 0, weights * values, 0).sum(0)
    return jnp.where(total > 0, sums / jnp.where(total > 0, total, 1), 0)


def averaged(zeros: jax.Array) -> PyTree:
    """State of a moving average: its value, and how much of it is no longer its start."""
    return {"mean": zeros, "share": jnp.zeros(())}


def updated(state: PyTree, means: jax.Array, batch: Batch, decay: float) -> PyTree:
    """The average after a step with means [domains, ...]; domains without rows have no say."""
    meant = np.array(meant_domains(batch.roles))
    has_rows = (batch.present > 0).any(0)[meant]
    latest = jax.lax.stop_gradient(means)[meant]
    counted = jnp.maximum(1, has_rows.sum())
    latest = latest.sum(0) / counted  # the mean of a domain without rows is 0
    new = jnp.where(has_rows.any(), 1 - decay, 0)
    share = state["share"] + new * (1 - state["share"])
    weight = new / jnp.where(share > 0, share, 1)
    return {"mean": state["mean"] + weight * (latest - state["mean"]), "share": share}
