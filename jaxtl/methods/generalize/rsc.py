"""Representation self-challenging: the features that speak most for a class are left out."""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import SHARE, checked
from jaxtl.losses import supervised
from jaxtl.methods.adapt.sides import flat_features
from jaxtl.methods.generalize.sources import head_logits
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


@checked
def rsc(
    tx: optax.GradientTransformation | Groups,
    *,
    features_dropped: Annotated[float, SHARE] = 1 / 3,
    examples_challenged: Annotated[float, SHARE] = 1 / 3,
) -> Method:
    """The supervised objective on features without those with the largest gradient.

    The gradient of the right class's logit with respect to an example's features is the class's row
    of the head; features whose gradient is at least its (1 - features_dropped) quantile are set to
    0. Only those labelled examples are challenged whose probability of the right class falls most
    by that: from the (1 - examples_challenged) quantile on. What is muted is a constant of the
    gradient.

    As in public code features are muted one by one, after the backbone; the paper mutes places or
    channels of a convolution's map. It reads no domains, so that one source is enough.

    Args:
        features_dropped, examples_challenged: the paper's p and batch percentage, 1/3 each.

    Raises:
        ValueError: a head has no classes.

    Huang et al., "Self-Challenging Improves Cross-Domain Generalization", ECCV 2020.
    arXiv:2007.02454, Algorithm 1.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        features, logits, challenged = flat_features(output), {}, []
        for name in [name for name in model.heads if name in batch.labels]:
            if not model.heads[name].integer:
                raise ValueError(f"rsc mutes what speaks for a class, head {name!r} has none")
            labels = jnp.maximum(batch.labels[name], 0)
            kernel = jax.lax.stop_gradient(params["heads"][name]["kernel"])
            gradient = kernel.T[labels]  # [batch, domains, width]
            largest = jnp.inf  # a quantile would still mute one
            if features_dropped:
                largest = jnp.quantile(gradient, 1 - features_dropped, -1, keepdims=True)
            muted = jnp.where(gradient < largest, features, 0)

            def sureness(logits: jax.Array, labels: jax.Array = labels) -> jax.Array:
                probabilities = jax.nn.softmax(logits)
                return jnp.take_along_axis(probabilities, labels[..., None], -1)[..., 0]

            fall = sureness(output["logits"][name]) - sureness(head_logits(params, name, muted))
            fall = jnp.where(batch.weights[name] > 0, fall, jnp.nan)
            least = jnp.inf
            if examples_challenged:
                least = jnp.nanquantile(fall, 1 - examples_challenged)
            challenge = fall >= least
            chosen = jnp.where(challenge[..., None], muted, features)
            logits[name] = head_logits(params, name, chosen)
            challenged.append(challenge.mean())
        loss, _ = supervised(model.heads, logits, batch)
        return loss, (state, {"challenged": sum(challenged) / len(challenged)})

    return one_update(as_groups(tx), loss_fn, per_example=False)
