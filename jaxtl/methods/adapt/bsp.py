"""Batch spectral penalisation: transferable features without a few dominant directions."""

import jax
import optax

from jaxtl.losses import largest_singular_values
from jaxtl.methods.adapt.adversary import for_domains
from jaxtl.methods.adapt.dann import DISCRIMINATOR, domain_term
from jaxtl.methods.adapt.sides import Side, Weight, adapted, at_step
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.plan import Method, Module, Params


def bsp(
    tx: optax.GradientTransformation | Groups,
    *,
    reversal: Weight,
    weight: Weight = 2e-4,
    count: int = 1,
    domain_weight: Weight = 1.0,
    discriminator: Module | None = None,
) -> Method:
    """`dann` + weight * the largest squared singular values of the features of each side.

    Args:
        tx, reversal, discriminator: as in `dann`.
        weight: factor of the penalty, the paper's beta, or step -> factor.
        count: how many singular values of the source's and of the target's features, the paper's
            k = 1.
        domain_weight: factor of the domain classifier's loss, or step -> factor.

    Chen et al., "Transferability vs. Discriminability: Batch Spectral Penalization for Adversarial
    Domain Adaptation", ICML 2019.
    """
    network = for_domains(discriminator, (100,))
    adversarial = domain_term(network, reversal, domain_weight)

    def term(params: Params, source: Side, target: Side, rng: jax.Array, step: jax.Array):
        value, metrics = adversarial(params, source, target, rng, step)
        spectral = sum(
            largest_singular_values(side.features, side.present, count=count)
            for side in (source, target)
        )
        return value + at_step(weight, step) * spectral, {**metrics, "spectral_loss": spectral}

    return adapted(tx, term, modules={DISCRIMINATOR: network})
