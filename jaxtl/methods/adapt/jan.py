"""Joint adaptation networks: features and predictions whose joint kernel embeddings agree."""

import jax
import optax

from jaxtl.losses import joint_mmd
from jaxtl.losses.kernels import MEAN_BANDWIDTHS, Bandwidths
from jaxtl.methods.adapt.sides import Side, Weight, regularised
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.plan import Method

PROBABILITIES = (2 * 0.92**2,)


def jan(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight = 1.0,
    feature_bandwidths: Bandwidths = MEAN_BANDWIDTHS,
    class_bandwidths: Bandwidths = PROBABILITIES,
    unbiased: bool = False,
) -> Method:
    """The supervised objective + weight * the joint MMD of features and probabilities.

    The quadratic estimate, where the paper takes the linear-time one; gradients flow through the
    probabilities too.

    Args:
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        weight: factor of the MMD, the paper's lambda, or step -> factor.
        feature_bandwidths: of the features' Gaussian kernels, as in `losses.mmd`.
        class_bandwidths: of those of the probabilities; by default one, exp(-d^2 / (2 0.92^2)), as
            in the authors' code.
        unbiased: the U-statistic, which can be negative.

    Long et al., "Deep Transfer Learning with Joint Adaptation Networks", ICML 2017.
    arXiv:1605.06636.
    """

    def penalty(source: Side, target: Side):
        layers = [(side.features, jax.nn.softmax(side.logits)) for side in (source, target)]
        bandwidths = (feature_bandwidths, class_bandwidths)
        return joint_mmd(
            *layers, source.present, target.present, bandwidths=bandwidths, unbiased=unbiased
        )

    return regularised(tx, "joint_mmd", penalty, weight=weight)
