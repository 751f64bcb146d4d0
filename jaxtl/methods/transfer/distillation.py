"""Knowledge distillation: a teacher's logits beside the labels."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import optax

from jaxtl.losses import softened_divergence, supervised
from jaxtl.methods.transfer.fine_tuning import one_update
from jaxtl.methods.transfer.teachers import Teacher, ask_teacher, keep_teacher
from jaxtl.models import apply_flat
from jaxtl.paths import unknown
from jaxtl.plan import Method, Model, Params, PyTree, StageShape, Statistics


def distill(
    tx: optax.GradientTransformation,
    *,
    heads: Sequence[str] | Mapping[str, str],
    teacher: Teacher | None = None,
    weight: float = 1.0,
    temperature: float = 2.0,
    trainable: Sequence[str] = (".*",),
) -> Method:
    """The supervised objective + weight * T^2 KL(teacher || student), both softened by T.

    The divergence is the weighted mean over all examples of the batch, unlabelled ones too, and
    the sum over the heads. The paper's weights are `weight` and the labelled domains' own.

    Args:
        heads: heads of classes to distil, or {the student's: the teacher's}. A head that no domain
            of the stage names stays as it is, like everywhere.
        teacher: None for the student at the start of the stage (self-distillation).
        temperature: T > 0.

    Raises:
        ValueError: when a stage is checked, heads are unknown, without classes or of other sizes.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015. arXiv:1503.02531.
    """
    pairs = dict(heads) if isinstance(heads, Mapping) else {head: head for head in heads}
    groups = {"all": (tuple(trainable), tx)}
    attributes = keep_teacher(teacher, groups)

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        _check_heads(model, teacher.model if teacher else model, pairs)
        return attributes["state"](model, params, statistics, shape)

    def loss_fn(model, params, state, batch, rng, step):
        targets = ask_teacher(teacher, model, params, state, batch.inputs)["logits"]
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        loss, metrics = supervised(model.heads, output["logits"], batch)
        divergences = sum(
            softened_divergence(output["logits"][head], targets[other], temperature=temperature)
            for head, other in pairs.items()
        )
        divergences = divergences.reshape(*batch.present.shape, -1).mean(-1)
        divergence = jnp.mean(batch.present * divergences)
        return loss + weight * divergence, (state, {**metrics, "distillation_loss": divergence})

    return one_update(groups, loss_fn, per_example=True, **attributes | {"state": start})


def _check_heads(student: Model, teacher: Model, pairs: Mapping[str, str]) -> None:
    """Raises ValueError that lists all heads which cannot be distilled."""
    problems = [] if pairs else ["heads: name at least one to distil"]
    for head, other in pairs.items():
        sides = {"student": (head, student.heads), "teacher": (other, teacher.heads)}
        missing = [
            f"{side}: {unknown('head', name, heads)}"
            for side, (name, heads) in sides.items()
            if name not in heads
        ]
        problems += missing
        if missing:
            continue
        a, b = student.heads[head], teacher.heads[other]
        if not (a.integer and b.integer) or a.size != b.size:
            problems.append(
                f"heads {head!r} and {other!r} must be of the same classes to be distilled"
            )
    if problems:
        raise ValueError("\n".join(problems))
