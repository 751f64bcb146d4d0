"""Central moment discrepancy: features whose means and central moments agree."""

from collections.abc import Callable

import jax
import optax

from jaxtl.losses import central_moment_discrepancy
from jaxtl.methods.adapt.sides import Side, Weight, regularised
from jaxtl.methods.transfer.fine_tuning import Groups
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
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        weight: factor of the discrepancy, the paper's lambda = 1, or step -> factor.
        order: the highest moment, the paper's K = 5.
        bounded: features -> [0, 1]; `lambda x: x` for a backbone that ends with sigmoids.

    Zellinger et al., "Central Moment Discrepancy (CMD) for Domain-Invariant Representation
    Learning", ICLR 2017. arXiv:1702.08811.
    """

    def penalty(source: Side, target: Side):
        here, there = bounded(source.features), bounded(target.features)
        return central_moment_discrepancy(here, there, source.present, target.present, order=order)

    return regularised(tx, "moment_discrepancy", penalty, weight=weight)
