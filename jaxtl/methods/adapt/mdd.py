"""Margin disparity discrepancy: no second classifier can disagree on the target alone."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import margin_disparity, reverse_gradient
from jaxtl.methods.adapt.adversary import both, for_classes
from jaxtl.methods.adapt.sides import Side, Weight, adapted, at_step
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.plan import Method, Module, Params

ADVERSARY = "adversary"


def mdd(
    tx: optax.GradientTransformation | Groups,
    *,
    reversal: Weight,
    weight: Weight = 1.0,
    margin: float = 4.0,
    adversary: Module | None = None,
) -> Method:
    """The supervised objective + weight * the loss of an adversarial classifier behind a reversal.

    The adversary learns to agree with the model's predictions on the source and to disagree on
    the target; the features learn the contrary. The predictions are constants of the gradient.

    Args:
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        reversal: step -> coefficient of the reversal >= 0, or a constant; in the authors' code a
            rise to 0.1, `losses.reversal_schedule(num_steps, high=0.1)`.
        weight: factor of the adversary's loss, the paper's eta, or step -> factor.
        margin: factor of the loss on the source, the paper's gamma = exp(margin).
        adversary: features [..., features] -> [..., classes]; by default linear, of the kind of
            the model's head. The paper has a hidden layer of 1024 in both.

    Zhang et al., "Bridging Theory and Algorithm for Domain Adaptation", ICML 2019.
    arXiv:1904.05801, Section 5.
    """
    network = for_classes(adversary)

    def term(params: Params, source: Side, target: Side, rng: jax.Array, step: jax.Array):
        del rng
        coefficient = at_step(reversal, step)
        features = reverse_gradient(both(source, target, "features"), coefficient)
        found = network.apply(params[ADVERSARY], features)
        ours, theirs = found[: len(source.features)], found[len(source.features) :]
        # The disparity minds proportions within a side only, a mean over examples their sums too.
        mean, other = source.present.mean(), jnp.maximum(target.present.mean(), 1e-12)
        loss = other * margin_disparity(
            source.logits,
            ours,
            target.logits,
            theirs,
            source.present,
            target.present,
            margin=margin * mean / other,
        )
        metrics = {"disparity_loss": loss, "reversal": coefficient}
        return at_step(weight, step) * loss, metrics

    return adapted(tx, term, modules={ADVERSARY: network}, per_example=True)
