"""MDAN: an adversary for each source, and most weight for the source whose bound is worst."""

from typing import Annotated

import jax
import optax

from jaxtl.form import POSITIVE, checked
from jaxtl.methods.adapt.several_sources import weighted_by_bounds
from jaxtl.methods.adapt.sides import Weight
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.plan import Method, Module


@checked
def mdan(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight = 0.01,
    reversal: Weight = 1.0,
    sharpness: Annotated[float, POSITIVE] = 10.0,
    discriminator: Module | None = None,
) -> Method:
    """sum_i w_i (task loss_i + weight * domain loss_i), most for sources that are hard or far.

    w is softmax(sharpness * (task loss_i - weight * domain loss_i)), a constant of the gradient:
    the soft maximum of the sources' bounds, whose gradient this is. Domain loss i is that of a
    discriminator of source i from the targets, behind a reversal; what is small there is far. In w
    it is log 2 at most, as the bound is about the best discriminator, which is never worse than
    guessing. The paper's Algorithm 1 weighs so; in public code the sign of the domain loss in w is
    the other.

    A source's task loss is its term of the supervised objective; labels of a target add theirs. A
    domain loss is the mean of the binary cross-entropies of both sides, in public code their sum.

    Args:
        weight: factor of the domain losses, which their discriminators also get; the paper's mu.
        sharpness: the paper's gamma.
        discriminator: features [..., features] -> [..., 1], one for each source; by default
            linear, as in public code.

    Raises:
        ValueError: the stage has fewer than two sources, or no target.

    Zhao et al., "Adversarial Multiple Source Domain Adaptation", NeurIPS 2018. arXiv:1705.09684,
    Eq. 5 and Algorithm 1.
    """

    def soft_maximum(bounds: jax.Array) -> jax.Array:
        return jax.nn.softmax(sharpness * bounds)

    return weighted_by_bounds(tx, weight, reversal, discriminator, soft_maximum)


@checked
def mdan_hard(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight = 0.01,
    reversal: Weight = 1.0,
    discriminator: Module | None = None,
) -> Method:
    """`mdan` whose whole weight is that of the source with the largest bound: the paper's Eq. 4.

    Of equal bounds the first counts. The others, their discriminators among them, do not train in
    that step.
    """

    def maximum(bounds: jax.Array) -> jax.Array:
        return jax.nn.one_hot(bounds.argmax(), len(bounds))

    return weighted_by_bounds(tx, weight, reversal, discriminator, maximum)
