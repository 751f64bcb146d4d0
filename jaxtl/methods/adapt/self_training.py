"""Self-training: the model learns from its own confident predictions on the target."""

import jax
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.pseudo_labels import confident_cross_entropy
from jaxtl.methods.adapt.sides import split_sides, targets_of
from jaxtl.methods.teacher import start_teacher, teacher_outputs, update_teacher
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Batch, Method, Model, Params, State


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
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        threshold: least probability of a label that is used; the mean is over all examples.
        weight: factor of their loss.
        every: steps between two copies.

    Raises:
        ValueError: every is not positive.

    Lee, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural
    Networks", ICML Workshop 2013, Eq. 15 and 16.
    """
    if every < 1:
        raise ValueError(f"self_training renews its copy every {every} steps; at least 1 needed.")
    groups = as_groups(tx)

    def loss_fn(model: Model, params: Params, state: State, batch: Batch, rng, step: jax.Array):
        kept = update_teacher(state.method, params, state, step % every == 0)
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        _, target = split_sides(output, batch)
        believed, _ = teacher_outputs(model, params, kept, targets_of(batch.inputs, batch))
        (head,) = batch.labels
        loss, share = confident_cross_entropy(
            target.logits, believed["logits"][head], threshold, target.present
        )
        metrics = {"task_loss": task, "pseudo_loss": loss, "pseudo_share": share}
        return task + weight * loss, (state._replace(method=kept), metrics)

    return one_update(groups, loss_fn, per_example=True, state=start_teacher(groups))
