"""How far a student's outputs are from a teacher's, for each example."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses.magnitude import below_largest


def softened_divergence(
    student: jax.Array, teacher: jax.Array, *, temperature: float = 1.0
) -> jax.Array:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)).

    The factor keeps the size of the gradient when T changes. The paper's cross-entropy between the
    softened outputs differs from the divergence by the entropy of the teacher's, which has no
    gradient: at equality this is 0.

    Args:
        student, teacher: [..., classes] float logits; the teacher's have no gradient.
        temperature: T > 0.

    Returns:
        [...] float >= 0, up to rounding.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015. arXiv:1503.02531,
    Section 2.
    """
    targets = jax.nn.log_softmax(below_largest(jax.lax.stop_gradient(teacher)) / temperature)
    predictions = jax.nn.log_softmax(below_largest(student) / temperature)
    return temperature**2 * optax.losses.kl_divergence_with_log_targets(predictions, targets)


def hint(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """1/2 |student - teacher|^2, a sum over the features.

    Args:
        student, teacher: [..., features] float; the teacher's have no gradient.

    Returns:
        [...] float >= 0.

    Romero et al., "FitNets: Hints for Thin Deep Nets", 2015. arXiv:1412.6550, Eq. 3.
    """
    return 0.5 * jnp.sum((student - jax.lax.stop_gradient(teacher)) ** 2, -1)
