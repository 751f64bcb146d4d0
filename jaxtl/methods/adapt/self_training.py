"""Self-training: the model learns from its own confident predictions on the target."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.sides import example_mean, head_of, target_rows
from jaxtl.methods.teacher import start_teacher, teacher_outputs, update_teacher
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


def self_training(
    tx: optax.GradientTransformation | Groups,
    *,
    threshold: float = 0.9,
    weight: float = 1.0,
    every: int = 100,
) -> Method:
    """The supervised objective + weight * cross-entropy with pseudo-labels of the target.

    The pseudo-labels are those of a copy of the model, batch statistics among it, that is renewed
    every so many steps; before it runs on, at step 0, it is what the stage starts from. So the
    stage should start from a source model. Lee trains on the labels of the model as it is now
    (every = 1), on all examples (threshold = 0), and lets the weight grow. The labels are argmaxes
    and no class is favoured, unlike in class-balanced self-training (Zou et al., 2018).

    Args:
        threshold: least probability of a label that is used; the mean is over all examples.
        every: steps between two copies.

    Raises:
        ValueError: every is not positive.

    Lee, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural
    Networks", ICML Workshop 2013, Eq. 15 and 16.
    """
    if every < 1:
        raise ValueError(f"self_training renews its copy every {every} steps; at least 1 needed.")
    groups = as_groups(tx)

    def loss_fn(model, params, state, batch, rng, step):
        head = head_of(batch)
        teacher = update_teacher(state.method, params, state, step % every == 0)
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        examples = (output["logits"][head], batch.inputs, batch.present)
        logits, inputs, present = target_rows(examples, batch)
        teacher_logits = teacher_outputs(model, params, teacher, inputs)[0]["logits"][head]
        pseudo_loss, share = confident_cross_entropy(logits, teacher_logits, threshold, present)
        metrics = {"task_loss": task, "pseudo_loss": pseudo_loss, "pseudo_share": share}
        return task + weight * pseudo_loss, (state._replace(method=teacher), metrics)

    return one_update(groups, loss_fn, per_example=True, state=start_teacher(groups))


def confident_cross_entropy(
    logits: jax.Array, teacher_logits: jax.Array, threshold: float, present: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy with the teacher's likeliest class wherever that has at least a probability.

    Args:
        logits: [n, classes] float, of what trains.
        teacher_logits: [n, classes] float, constants of the gradient.
        threshold: least probability of the likeliest class.
        present: [n] float >= 0, the examples' own weights.

    Returns:
        (the weighted sum over those examples / n, their share of all), both [].
    """
    teacher_logits = jax.lax.stop_gradient(teacher_logits)
    confident = (jax.nn.softmax(teacher_logits).max(-1) >= threshold).astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, teacher_logits.argmax(-1))
    return example_mean(confident * losses, present), confident.mean()
