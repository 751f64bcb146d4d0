"""DIRT-T: an adapted model moves its boundary on the target alone, in steps that stay small."""

import jax
import optax

from jaxtl.losses import softened_divergence, virtual_adversarial
from jaxtl.methods.adapt.sides import as_rows, example_mean, head_of, mean_entropy
from jaxtl.methods.teacher import start_teacher, teacher_outputs, update_teacher
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


def dirt_t(
    tx: optax.GradientTransformation | Groups,
    *,
    target_weight: float = 0.01,
    teacher_weight: float = 0.01,
    radius: float = 3.5,
    every: int = 500,
) -> Method:
    """target_weight * (entropy + smoothness) + teacher_weight * KL(teacher || student).

    For a stage of unlabelled domains after one of `vada`. The teacher is the student as it was
    some steps ago, batch statistics included, and is renewed every so many steps: the paper's
    sequence of refinements. There the teacher is an average of what trains.

    Args:
        target_weight: the paper's lambda_t.
        teacher_weight: its beta.
        radius: of the perturbations of `virtual_adversarial`, in the units of the inputs.
        every: steps of one refinement, the paper's B; 500 or 5,000 there.

    Raises:
        ValueError: every is not positive.

    Shu et al., "A DIRT-T Approach to Unsupervised Domain Adaptation", ICLR 2018. arXiv:1802.08735,
    Eq. 10.
    """
    if every < 1:
        raise ValueError(f"dirt_t renews its teacher every {every} steps; at least 1 is needed.")
    groups = as_groups(tx)

    def loss_fn(model, params, state, batch, rng, step):
        statistics, head = state.statistics, head_of(batch)
        teacher = update_teacher(state.method, params, state, step % every == 0)
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        logits, inputs, present = as_rows((output["logits"][head], batch.inputs, batch.present))

        def predict(inputs: jax.Array) -> jax.Array:
            output, _ = model.apply(params, statistics, inputs, rng=rng, train=True)
            return output["logits"][head]

        key = jax.random.fold_in(rng, 1)
        smoothness = virtual_adversarial(predict, key, inputs, logits, present, radius=radius)
        target_entropy = mean_entropy(logits, present)
        teacher_logits = teacher_outputs(model, params, teacher, inputs)[0]["logits"][head]
        divergence = example_mean(softened_divergence(logits, teacher_logits), present)
        loss = target_weight * (target_entropy + smoothness) + teacher_weight * divergence
        metrics = {"entropy": target_entropy, "smoothness": smoothness, "divergence": divergence}
        return loss, (state._replace(method=teacher), metrics)

    return one_update(groups, loss_fn, per_example=True, state=start_teacher(groups))
