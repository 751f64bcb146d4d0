"""Minimum class confusion: predictions on the target that do not hesitate between classes."""

import optax

from jaxtl.losses import class_confusion
from jaxtl.methods.adapt.sides import Side, Weight, regularised
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.plan import Method


def mcc(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight = 1.0,
    temperature: float = 2.5,
) -> Method:
    """The supervised objective + weight * the class confusion of the target's predictions.

    Args:
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        weight: factor of the confusion, or step -> factor.
        temperature: divides the logits; 2.5 in the paper's experiments.

    Jin et al., "Minimum Class Confusion for Versatile Domain Adaptation", ECCV 2020.
    arXiv:1912.03699.
    """

    def penalty(source: Side, target: Side):
        del source
        return class_confusion(target.logits, target.present, temperature=temperature)

    return regularised(tx, "class_confusion", penalty, weight=weight)
