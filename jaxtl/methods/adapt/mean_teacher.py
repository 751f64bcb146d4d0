"""Self-ensembling: predictions on the target that agree with those of an averaged model."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.sides import at_domains, head_of, target_rows
from jaxtl.methods.teacher import average, start_teacher, teacher_outputs
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method, Model, Params, PyTree, State
from jaxtl.plan.batch import sides_of


def mean_teacher(
    tx: optax.GradientTransformation | Groups,
    *,
    augment: Callable[[jax.Array, PyTree], PyTree] | None = None,
    decay: float = 0.99,
    confidence: float = 0.8,
    weight: float = 3.0,
    class_balance: float = 0.01,
) -> Method:
    """The supervised objective + agreement with a teacher, the average of the student.

    Adds weight * the squared difference of the probabilities of student and teacher, a mean over
    the classes, on target examples where the teacher is confident (the mean is over all), and
    class_balance * the binary cross-entropy between 1 / classes and the student's mean prediction,
    summed over the classes, times the share of the confident. The teacher is evaluated; what is
    handed on to a next stage is the student.

    Sources and targets pass the network one after the other, so that BatchNorm normalises each by
    its own statistics, and the teacher keeps statistics of the targets alone: as in the paper. The
    average takes in the student as each step finds it, so the last step does not reach it.

    Args:
        augment: (rng, inputs [n, ...] float) -> inputs, applied to the targets for the student and
            for the teacher, independently; None leaves them to differ by dropout.
        decay: in [0, 1) of the average.
        confidence: least probability of the teacher's likeliest class; 0.968 in the paper.
        class_balance: factor of the balance, 0.015 in the paper's code.

    French, Mackiewicz & Fisher, "Self-ensembling for visual domain adaptation", ICLR 2018.
    arXiv:1706.05208, Section 3.
    """
    groups, augment = as_groups(tx), augment or (lambda rng, inputs: inputs)

    def loss_fn(model, params, state, batch, rng, step):
        head, (sources, targets) = head_of(batch), sides_of(batch.roles)
        keys = jax.random.split(rng, 5)
        inputs, present = target_rows((batch.inputs, batch.present), batch)
        teacher = {**state.method, "params": average(state.method, params, decay)}
        source_inputs = at_domains(batch.inputs, sources)
        # Three passes, so that each side has batch statistics of its own.
        output, state = apply_flat(model, params, state, source_inputs, rng=keys[2], train=True)
        source_logits = output["logits"][head]
        output, statistics = model.apply(
            params, state.statistics, augment(keys[0], inputs), rng=keys[3], train=True
        )
        target_logits = output["logits"][head]
        output, teacher["statistics"] = teacher_outputs(
            model, params, teacher, augment(keys[1], inputs), rng=keys[4], train=True
        )
        teacher_logits = output["logits"][head]

        by_domain = target_logits.reshape(len(source_logits), -1, source_logits.shape[-1])
        logits = jnp.concatenate([source_logits, by_domain], 1)
        labels, weights = at_domains((batch.labels, batch.weights), sources + targets)
        sources_then_targets = batch.replace(labels=labels, weights=weights)
        task, _ = supervised(model.heads, {head: logits}, sources_then_targets)

        p, teacher_p = jax.nn.softmax(target_logits), jax.nn.softmax(teacher_logits)
        confident = (teacher_p.max(-1) > confidence).astype(jnp.float32)
        shares = present / jnp.maximum(present.sum(), 1e-12)
        consistency = jnp.sum(shares * confident * jnp.mean((p - teacher_p) ** 2, -1))
        mean_p, even = jnp.clip(shares @ p, 1e-6, 1 - 1e-6), 1 / p.shape[-1]
        balance = -jnp.sum(even * jnp.log(mean_p) + (1 - even) * jnp.log1p(-mean_p))
        balance *= jnp.sum(shares * confident)
        metrics = {
            "task_loss": task,
            "consistency": consistency,
            "class_balance": balance,
            "confident_share": confident.mean(),
        }
        loss = task + weight * consistency + class_balance * balance
        return loss, (State(statistics, teacher), metrics)

    def predict(model: Model, params: Params, state: State, inputs: PyTree):
        return teacher_outputs(model, params, state.method, inputs)[0]

    return one_update(
        groups, loss_fn, per_example=False, state=start_teacher(groups), predict=predict
    )
