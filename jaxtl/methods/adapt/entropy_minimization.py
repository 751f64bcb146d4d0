"""Entropy minimisation: sure predictions on the target."""

import optax

from jaxtl.losses import entropy
from jaxtl.methods.adapt.sides import Side, Weight, regularised
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.plan import Method


def entropy_minimization(
    tx: optax.GradientTransformation | Groups, *, weight: Weight = 0.1
) -> Method:
    """The supervised objective + weight * the mean entropy of the target's predictions.

    Args:
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        weight: factor of the entropy, or step -> factor. The paper searches it per problem.

    Grandvalet & Bengio, "Semi-supervised Learning by Entropy Minimization", NeurIPS 2004.
    """

    def penalty(source: Side, target: Side):
        del source
        return target.present.mean() * entropy(target.logits, target.present)

    return regularised(tx, "entropy", penalty, weight=weight, per_example=True)
