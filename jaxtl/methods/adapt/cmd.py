"""Central moment discrepancy: features whose means and central moments agree."""

from collections.abc import Callable

import jax
import optax

from jaxtl.losses import central_moment_discrepancy, supervised
from jaxtl.methods.adapt.sides import Weight, at_step, flat_features, rows_by_side
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


def cmd(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight = 1.0,
    order: int = 5,
    bounded: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
) -> Method:
    """The supervised objective + weight * the central moment discrepancy of the features.

    The discrepancy is of variables in an interval. The paper aligns a hidden layer of sigmoids;
    here `bounded` is applied before the comparison, and only there.

    Args:
        weight: the paper's lambda = 1.
        order: the highest moment, the paper's K = 5.
        bounded: features -> [0, 1]; `lambda x: x` for a backbone that ends with sigmoids.

    Zellinger et al., "Central Moment Discrepancy (CMD) for Domain-Invariant Representation
    Learning", ICLR 2017. arXiv:1702.08811.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        features = [bounded(rows) for rows in rows_by_side(flat_features(output), batch)]
        present = rows_by_side(batch.present, batch)
        discrepancy = central_moment_discrepancy(*features, *present, order=order)
        loss = task + at_step(weight, step) * discrepancy
        return loss, (state, {"task_loss": task, "moment_discrepancy": discrepancy})

    return one_update(as_groups(tx), loss_fn, per_example=False)
