"""Domain-adversarial training: features that a domain classifier cannot tell apart."""

import jax
import optax

from jaxtl.methods.adapt.adversary import both, for_domains, reversed_domain_loss
from jaxtl.methods.adapt.sides import Side, Term, Weight, adapted, at_step
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.plan import Method, Module, Params

DISCRIMINATOR = "discriminator"


def dann(
    tx: optax.GradientTransformation | Groups,
    *,
    reversal: Weight,
    weight: Weight = 1.0,
    discriminator: Module | None = None,
) -> Method:
    """The supervised objective + weight * the loss of a domain classifier behind a reversal.

    Each domain of the stage is a class of the classifier. Its softmax cross-entropy is the mean
    over the examples of all domains; with two domains it is the paper's binary one, the mean of
    source and target. Example weights count in it, so that a domain whose weights have another
    mean than 1 counts as so much larger.

    Args:
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        reversal: step -> the paper's lambda_p >= 0, such as `losses.reversal_schedule`, or a
            constant.
        weight: factor of the classifier's loss, or step -> factor.
        discriminator: features [..., features] -> [..., domains]; by default one hidden layer of
            100, the paper's for small images.

    Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016. arXiv:1505.07818,
    Eq. 9, 10 and 18.
    """
    network = for_domains(discriminator, (100,))
    term = domain_term(network, reversal, weight)
    return adapted(tx, term, modules={DISCRIMINATOR: network}, per_example=True)


def domain_term(discriminator: Module, reversal: Weight, weight: Weight) -> Term:
    """The term of `dann`, for methods that add others to it."""

    def term(params: Params, source: Side, target: Side, rng: jax.Array, step: jax.Array):
        del rng
        loss, metrics = reversed_domain_loss(
            discriminator,
            params[DISCRIMINATOR],
            both(source, target, "features"),
            both(source, target, "domains"),
            at_step(reversal, step),
            both(source, target, "present"),
        )
        return at_step(weight, step) * loss, metrics

    return term
