"""Self-ensembling: predictions on the target that agree with those of an averaged model."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.sides import at_domains, head_of, targets_of
from jaxtl.methods.teacher import average, start_teacher, teacher_outputs
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Batch, Method, Model, Params, PyTree, State
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
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        augment: (rng, inputs [n, ...] float) -> inputs, applied to the targets for the student and
            for the teacher, independently; None leaves them to differ by dropout.
        decay: in [0, 1) of the average.
        confidence: least probability of the teacher's likeliest class; 0.968 in the paper.
        weight: factor of the agreement.
        class_balance: factor of the balance, 0.015 in the paper's code.

    French, Mackiewicz & Fisher, "Self-ensembling for visual domain adaptation", ICLR 2018.
    arXiv:1706.05208, Section 3.
    """
    groups = as_groups(tx)

    def loss_fn(model: Model, params: Params, state: State, batch: Batch, rng, step: jax.Array):
        sources, targets = sides_of(batch.roles)
        head, kept = head_of(batch), dict(state.method)
        kept["params"] = average(kept, params, decay)
        seen, keys = targets_of(batch.inputs, batch), jax.random.split(rng, 5)
        views = [seen if augment is None else augment(key, seen) for key in keys[:2]]
        first = at_domains(batch.inputs, sources)
        output, state = apply_flat(model, params, state, first, rng=keys[2], train=True)
        on_source = output["logits"][head]
        output, statistics = model.apply(
            params, state.statistics, views[0], rng=keys[3], train=True
        )
        on_target = output["logits"][head]
        student = jax.nn.softmax(on_target)
        on_target = on_target.reshape(len(on_source), -1, on_source.shape[-1])
        logits = jnp.concatenate([on_source, on_target], 1)
        labels, weights = at_domains((batch.labels, batch.weights), sources + targets)
        sorted_batch = batch.replace(labels=labels, weights=weights)
        task, _ = supervised(model.heads, {head: logits}, sorted_batch)
        output, kept["statistics"] = teacher_outputs(
            model, params, kept, views[1], rng=keys[4], train=True
        )
        teacher = jax.nn.softmax(output["logits"][head])
        sure = (teacher.max(-1) > confidence).astype(jnp.float32)
        present = targets_of(batch.present, batch)
        shares = present / jnp.maximum(present.sum(), 1e-12)
        gap = jnp.sum(shares * sure * jnp.mean((student - teacher) ** 2, -1))
        mean = jnp.clip(shares @ student, 1e-6, 1 - 1e-6)
        share = 1 / mean.size
        balance = -jnp.sum(share * jnp.log(mean) + (1 - share) * jnp.log1p(-mean))
        balance *= jnp.sum(shares * sure)
        metrics = {
            "task_loss": task,
            "consistency": gap,
            "class_balance": balance,
            "confident_share": sure.mean(),
        }
        loss = task + weight * gap + class_balance * balance
        return loss, (State(statistics, kept), metrics)

    def predict(model: Model, params: Params, state: State, inputs: PyTree):
        return teacher_outputs(model, params, state.method, inputs)[0]

    return one_update(
        groups, loss_fn, per_example=False, state=start_teacher(groups), predict=predict
    )
