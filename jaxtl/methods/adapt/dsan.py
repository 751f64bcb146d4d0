"""Deep subdomain adaptation: the features of each class agree across domains."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import local_mmd
from jaxtl.losses.kernels import MEAN_BANDWIDTHS, Bandwidths
from jaxtl.methods.adapt.sides import Side, Weight, regularised
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.plan import Method


def dsan(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight,
    bandwidths: Bandwidths = MEAN_BANDWIDTHS,
) -> Method:
    """The supervised objective + weight * the local MMD of the features, class by class.

    A source example belongs to the class of its label, or to none; a target example to each class
    with its predicted probability. As in the authors' code these are constants of the gradient.

    Args:
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        weight: factor of the local MMD, or step -> factor: in the paper 0.5 times a rise from 0
            to 1, `losses.reversal_schedule(num_steps, high=0.5)`.
        bandwidths: of the Gaussian kernels, as in `losses.mmd`.

    Zhu et al., "Deep Subdomain Adaptation Network for Image Classification", TNNLS 2021.
    arXiv:2106.09388.
    """

    def penalty(source: Side, target: Side):
        known = jnp.where(source.weights > 0, source.present, 0)
        classes = jax.nn.one_hot(source.labels, source.logits.shape[-1])
        guessed = jax.nn.softmax(jax.lax.stop_gradient(target.logits))
        return local_mmd(
            source.features,
            target.features,
            classes,
            guessed,
            known,
            target.present,
            bandwidths=bandwidths,
        )

    return regularised(tx, "local_mmd", penalty, weight=weight)
