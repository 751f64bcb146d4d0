"""What a model believes about unlabelled examples, and training on it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxtl.methods.adapt.sides import example_mean, head_of
from jaxtl.plan import Batch


def confident_cross_entropy(
    logits: jax.Array, believed: jax.Array, threshold: float, present: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy with the likeliest class wherever that has at least a probability.

    Args:
        logits: [n, classes] float, of what trains.
        believed: [n, classes] float logits of what labels, constants of the gradient.
        threshold: least probability of the likeliest class.
        present: [n] float >= 0, the examples' own weights.

    Returns:
        (the weighted sum over those examples / n, their share of all), both [].
    """
    believed = jax.lax.stop_gradient(believed)
    used = (jax.nn.softmax(believed).max(-1) >= threshold).astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, believed.argmax(-1))
    return example_mean(used * losses, present), used.mean()


def pooled(output: Mapping[str, Any], batch: Batch) -> tuple[jax.Array, jax.Array]:
    """(features [n, features], logits [n, classes]) of the examples of all domains.

    Args:
        output: as `apply_flat` returns it.
        batch: its domains name one head.

    Raises:
        ValueError: they name several.
    """
    features, logits = output["features"], output["logits"][head_of(batch)]
    return features.reshape(-1, features[0, 0].size), logits.reshape(-1, logits.shape[-1])
