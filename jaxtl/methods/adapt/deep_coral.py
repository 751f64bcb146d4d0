"""Deep CORAL: outputs, or features, whose covariances agree."""

import optax

from jaxtl.losses import coral
from jaxtl.methods.adapt.sides import Side, Weight, regularised
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.plan import Method


def deep_coral(tx: optax.GradientTransformation | Groups, *, weight: Weight = 1.0) -> Method:
    """The supervised objective + weight * the distance of the covariances of the logits.

    The logits are the layer that the paper aligns; `deep_coral_features` aligns what comes before.
    A target with few examples a batch wants a batch larger than its classes.

    Args:
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        weight: factor of the distance, or step -> factor. The paper chooses it so that both terms
            end about equal.

    Sun & Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", 2016.
    arXiv:1607.01719, Eq. 1 and 6.
    """

    def penalty(source: Side, target: Side):
        return coral(source.logits, target.logits, source.present, target.present)

    return regularised(tx, "coral", penalty, weight=weight)


def deep_coral_features(
    tx: optax.GradientTransformation | Groups, *, weight: Weight = 1.0
) -> Method:
    """`deep_coral` of the features before the head, which most public code aligns.

    Args:
        tx, weight: as in `deep_coral`.
    """

    def penalty(source: Side, target: Side):
        return coral(source.features, target.features, source.present, target.present)

    return regularised(tx, "coral", penalty, weight=weight)
