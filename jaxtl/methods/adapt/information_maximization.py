"""Information maximisation: predictions on the target, each sure and all together diverse."""

import optax

from jaxtl import losses
from jaxtl.methods.adapt.sides import Side, Weight, regularised
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.plan import Method


def information_maximization(
    tx: optax.GradientTransformation | Groups, *, weight: Weight = 0.1
) -> Method:
    """The supervised objective - weight * the mutual information of target inputs and predictions.

    The metric `information_loss` is the mean entropy minus the entropy of the mean prediction.

    Args:
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        weight: factor of the information, or step -> factor.

    Krause et al., "Discriminative Clustering by Regularized Information Maximization", NeurIPS
    2010; on a target domain Shi & Sha, ICML 2012. arXiv:1206.6438.
    """

    def penalty(source: Side, target: Side):
        del source
        return losses.information_maximization(target.logits, target.present)

    return regularised(tx, "information_loss", penalty, weight=weight)
