"""Batch nuclear-norm maximisation: predictions on the target that are sure and diverse."""

import optax

from jaxtl.losses import batch_nuclear_norm
from jaxtl.methods.adapt.sides import Side, Weight, regularised
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.plan import Method


def bnm(tx: optax.GradientTransformation | Groups, *, weight: Weight = 1.0) -> Method:
    """The supervised objective - weight * the nuclear norm of the target's predictions.

    The norm of the matrix [n, classes] of probabilities is divided by n; the metric
    `nuclear_norm_loss` is minus that.

    Args:
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        weight: factor of the norm, or step -> factor.

    Cui et al., "Towards Discriminability and Diversity: Batch Nuclear-norm Maximization under
    Label Insufficient Situations", CVPR 2020. arXiv:2003.12237.
    """

    def penalty(source: Side, target: Side):
        del source
        return batch_nuclear_norm(target.logits, target.present)

    return regularised(tx, "nuclear_norm_loss", penalty, weight=weight)
