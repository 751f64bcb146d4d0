"""The examples of one step: what every loss reads, for B examples of each of D domains."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

PyTree = Any
Side = Literal["source", "target"]
Role = Side | Literal["support", "query"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """The batch axis leads, then the domains of the stage; a pytree whose roles are static.

    Attributes:
        inputs: pytree of [B, D, ...]; the leaves share the first two axes.
        labels: {head: [B, D, ...]} integers or floats; -1 or NaN where hidden or missing.
        weights: {head: [B, D, ...]} float >= 0, label by label; 0 = it must not be used.
        present: [B, D] float >= 0: the example's own weight, labels apart; 0 = padding.
        index: [B, D] int32: row of the example in its domain's whole table, whichever rows a seed
            draws and wherever they are read from.
        roles: [D] "source" or "target". Where B counts episodes, D counts the rows of one: first
            those of its "support", then each "query".
    """

    inputs: PyTree
    labels: Mapping[str, jax.Array]
    weights: Mapping[str, jax.Array]
    present: jax.Array
    index: jax.Array
    roles: tuple[Role, ...] = dataclasses.field(metadata={"static": True})

    def replace(self, **changes: Any) -> "Batch":
        """The same batch with other values of some attributes."""
        return dataclasses.replace(self, **changes)

    def __getitem__(self, name: str) -> Any:
        raise TypeError(f"a batch has attributes: write batch.{name} in place of batch[{name!r}]")


def sides_of(roles: Sequence[Role]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(positions of the sources, positions of the targets) among the domains of a stage.

    Raises:
        ValueError: there is none of either.
    """
    source, target = (
        tuple(d for d, role in enumerate(roles) if role == side) for side in ("source", "target")
    )
    if not (source and target):
        raise ValueError(
            f"{len(source)} of {len(roles)} domains are sources ({', '.join(roles)}); at least one "
            "source and one target needed: labelled(data, head) is a source, unlabelled(data, "
            'head) a target, and so is labelled(data, head, role="target")'
        )
    return source, target


def make_batch(
    inputs: PyTree,
    labels: Mapping[str, jax.Array],
    weights: Mapping[str, jax.Array] | None = None,
    *,
    present: jax.Array | None = None,
    index: jax.Array | None = None,
    roles: Sequence[Role] | None = None,
) -> Batch:
    """A `Batch` of one's own, to call a loss outside of a stage.

    Args:
        inputs, labels: as in `Batch`.
        weights: all ones if None.
        present: all ones if None.
        index: the position in the batch if None.
        roles: all sources if None.
    """
    lead = size, domains = jax.tree.leaves(inputs)[0].shape[:2]
    if weights is None:
        weights = {head: jnp.ones(jnp.shape(values)) for head, values in labels.items()}
    present = jnp.ones(lead) if present is None else present
    index = jnp.broadcast_to(jnp.arange(size)[:, None], lead) if index is None else index
    roles = ("source",) * domains if roles is None else tuple(roles)
    return Batch(inputs, labels, weights, present, index, roles)
