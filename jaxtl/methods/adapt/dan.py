"""Deep adaptation networks: features whose kernel mean embeddings agree."""

import optax

from jaxtl.losses import mmd
from jaxtl.losses.kernels import MEAN_BANDWIDTHS, Bandwidths
from jaxtl.methods.adapt.sides import Side, Weight, regularised
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.plan import Method


def dan(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight = 1.0,
    bandwidths: Bandwidths = MEAN_BANDWIDTHS,
    unbiased: bool = False,
) -> Method:
    """The supervised objective + weight * the squared MMD of the features with several kernels.

    Of the last features only, where the paper sums over three layers; the kernels weigh alike,
    where it learns their weights; and the quadratic estimate, where it takes the linear one.

    Args:
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        weight: factor of the MMD, the paper's lambda, or step -> factor.
        bandwidths: [k] of the Gaussian kernels, or a rule, as in `losses.mmd`.
        unbiased: the U-statistic, which can be negative.

    Long et al., "Learning Transferable Features with Deep Adaptation Networks", ICML 2015.
    arXiv:1502.02791.
    """

    def penalty(source: Side, target: Side):
        return mmd(
            source.features,
            target.features,
            source.present,
            target.present,
            bandwidths=bandwidths,
            unbiased=unbiased,
        )

    return regularised(tx, "mmd", penalty, weight=weight)
