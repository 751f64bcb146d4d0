"""Hints: features like those of a teacher, beside the labels."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax

from jaxtl.losses import hint, supervised
from jaxtl.methods.transfer.fine_tuning import one_update
from jaxtl.methods.transfer.teachers import Teacher, ask_teacher, keep_teacher
from jaxtl.models import apply_flat
from jaxtl.plan import Method, Module

PROJECTION = "projection"


def distill_features(
    tx: optax.GradientTransformation,
    *,
    teacher: Teacher | None = None,
    weight: float = 1.0,
    projection: Module | None = None,
    trainable: Sequence[str] = (".*",),
) -> Method:
    """The supervised objective + weight * 1/2 |projection(features) - teacher's features|^2.

    The squared distance is a sum over the features and the weighted mean over all examples of the
    batch.

    Args:
        teacher: None for the student at the start of the stage.
        projection: of the student's features, such as `models.mlp_head((), 512)`, a linear map to
            512 features of the teacher; None where both are of one size. It trains too.

    Romero et al., "FitNets: Hints for Thin Deep Nets", 2015. arXiv:1412.6550; there the hint is a
    stage of its own, and reads a layer in the middle.
    """
    modules = {} if projection is None else {PROJECTION: projection}
    groups = {"all": ((*trainable, *(f"{name}/.*" for name in modules)), tx)}

    def loss_fn(model, params, state, batch, rng, step):
        targets = ask_teacher(teacher, model, params, state, batch.inputs)["features"]
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        loss, metrics = supervised(model.heads, output["logits"], batch)
        features = output["features"]
        if projection is not None:
            features = projection.apply(params[PROJECTION], features)
        distances = hint(features, targets).reshape(*batch.present.shape, -1).mean(-1)
        distance = jnp.mean(batch.present * distances)
        return loss + weight * distance, (state, {**metrics, "distillation_loss": distance})

    return one_update(
        groups, loss_fn, per_example=True, modules=modules, **keep_teacher(teacher, groups)
    )
