"""Cross-entropies for rare classes and noisy labels.

Each takes (logits [..., classes], labels [...] int) and gives the loss of each example [...]; bind
the rest for a head: `Head(5, functools.partial(focal, gamma=2.0))`.
"""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses.magnitude import below_largest


def focal(logits: jax.Array, labels: jax.Array, *, gamma: float = 2.0) -> jax.Array:
    """Cross-entropy that neglects easy examples: -(1 - p)^gamma log p, with p of the true class.

    Args:
        logits: [..., classes] float.
        labels: [...] integer.
        gamma: >= 0; 0 is the cross-entropy, 2 the paper's default. The paper's alpha is a class
            weight and belongs in the weights of the examples.

    Lin et al., "Focal Loss for Dense Object Detection", 2017. arXiv:1708.02002, Eq. 4.
    """
    nats = cross_entropy(logits, labels)
    # Away from 0, where the power has no finite derivative for gamma < 1.
    missed = jnp.maximum(-jnp.expm1(-nats), jnp.finfo(nats.dtype).tiny)
    return missed**gamma * nats


def logit_adjusted(
    logits: jax.Array, labels: jax.Array, *, prior: jax.Array, temperature: float = 1.0
) -> jax.Array:
    """Cross-entropy of logits + temperature * log prior: unshifted logits rank all classes fairly.

    Minimised by the logits of the balanced error, which predict with no adjustment.

    Args:
        logits: [..., classes] float.
        labels: [...] integer.
        prior: [classes] > 0, class frequencies or counts (their scale does not matter).
        temperature: the paper's tau; 0 is the cross-entropy.

    Menon et al., "Long-tail learning via logit adjustment", 2021. arXiv:2007.07314, Eq. 10.
    """
    shift = temperature * jnp.log(jnp.asarray(prior, logits.dtype))
    shifted = below_largest(logits) + jnp.broadcast_to(shift, logits.shape)
    return cross_entropy(shifted, labels)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Of integer labels, logits of any size and offset: [..., classes] and [...] -> [...] nats."""
    return optax.softmax_cross_entropy_with_integer_labels(below_largest(logits), labels)
