"""OSBP: features for which a head cannot tell whether a target is of an unknown class."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import reverse_gradient, supervised
from jaxtl.methods.adapt.sides import (
    Weight,
    as_rows,
    at_domains,
    at_step,
    example_mean,
    head_of,
    target_rows,
)
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method
from jaxtl.plan.batch import sides_of


def osbp(
    tx: optax.GradientTransformation | Groups,
    *,
    reversal: Weight = 1.0,
    weight: Weight = 1.0,
    threshold: float = 0.5,
) -> Method:
    """The supervised objective + weight * -t log p - (1 - t) log(1 - p) on the targets.

    p is the probability of the head's last class, "unknown", of which no source has examples. The
    head pulls it to t; the features, behind a reversal, push it away from there, to 0 or to 1.

    Args:
        reversal: 1 in the paper.
        threshold: the paper's t in (0, 1).

    Raises:
        ValueError: the threshold is outside (0, 1); when it runs, the model has no blocks.

    Saito et al., "Open Set Domain Adaptation by Backpropagation", ECCV 2018. arXiv:1804.10427,
    Eq. 2 to 5.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"osbp's threshold is a probability between 0 and 1, got {threshold}.")

    def loss_fn(model, params, state, batch, rng, step):
        if not model.blocks:
            raise ValueError("osbp reverses the gradient of features; the model has no blocks.")
        head, targets = head_of(batch), sides_of(batch.roles)[1]
        backbone, heads = model.cut(model.blocks[-1])
        output, state = apply_flat(backbone, params, state, batch.inputs, rng=rng, train=True)
        features, coefficient = output["features"], at_step(reversal, step)
        logits = apply_flat(heads, params, state, features)[0]["logits"]
        task, _ = supervised(model.heads, logits, batch)
        opposed = reverse_gradient(at_domains(features, targets), coefficient)
        logits = as_rows(apply_flat(heads, params, state, opposed)[0]["logits"][head])
        # log p / (1 - p), so that neither logarithm is of a rounded 0.
        log_odds = logits[:, -1] - jax.nn.logsumexp(logits[:, :-1], 1)
        wanted = jnp.full_like(log_odds, threshold)
        losses = optax.sigmoid_binary_cross_entropy(log_odds, wanted)
        unknown_loss = example_mean(losses, target_rows(batch.present, batch))
        metrics = {"task_loss": task, "unknown_loss": unknown_loss, "reversal": coefficient}
        metrics["unknown_share"] = (logits.argmax(-1) == logits.shape[-1] - 1).mean()
        return task + at_step(weight, step) * unknown_loss, (state, metrics)

    return one_update(as_groups(tx), loss_fn, per_example=True)
