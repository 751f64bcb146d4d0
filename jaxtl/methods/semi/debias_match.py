"""DebiasMatch: FixMatch in which classes that the model favours have to be surer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.extra_views import apply_beside
from jaxtl.methods.adapt.self_training import confident_cross_entropy
from jaxtl.methods.adapt.sides import Weight, at_step, classes_of, head_of, target_rows
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.plan import Method, Model, Params, PyTree, StageShape, Statistics


def debias_match(
    tx: optax.GradientTransformation | Groups,
    *,
    strong: Callable[[jax.Array, PyTree], PyTree],
    threshold: float = 0.95,
    strength: float = 1.0,
    momentum: float = 0.999,
    weight: Weight = 1.0,
) -> Method:
    """`fix_match` with pseudo-labels of logits - strength * log of the mean prediction.

    The strong view is to have the label even after strength * log of that mean is added to its
    logits: a larger margin for classes that are seldom predicted. The mean is a running one over
    the targets, which starts where all classes are alike, and is constant in the gradient.

    Args:
        strength: the paper's lambda.
        momentum: in [0, 1) of the running mean; smaller for a stage of few steps.

    Wang et al., "Debiased Learning from Naturally Imbalanced Pseudo-Labels", CVPR 2022.
    arXiv:2201.01490, Eq. 2 to 4.
    """

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        classes = classes_of(shape)
        return {"mean_p": jnp.full(classes, 1 / classes)}

    def loss_fn(model, params, state, batch, rng, step):
        head, mean_p = head_of(batch), state.method["mean_p"]
        views = strong(jax.random.fold_in(rng, 1), target_rows(batch.inputs, batch))
        weak, seen, state = apply_beside(model, params, state, batch, views, rng)
        task, _ = supervised(model.heads, weak["logits"], batch)
        logits, present = target_rows((weak["logits"][head], batch.present), batch)
        logits = jax.lax.stop_gradient(logits)
        debiased = logits - strength * jnp.log(mean_p)[None]
        shares = present / jnp.maximum(present.sum(), 1e-12)
        mean_p = momentum * mean_p + (1 - momentum) * shares @ jax.nn.softmax(logits)
        harder = seen["logits"][head] + strength * jnp.log(mean_p)[None]
        pseudo_loss, share = confident_cross_entropy(harder, debiased, threshold, present)
        metrics = {"task_loss": task, "pseudo_loss": pseudo_loss, "pseudo_share": share}
        metrics["rarest_class"] = mean_p.min()
        state = state._replace(method={"mean_p": mean_p})
        return task + at_step(weight, step) * pseudo_loss, (state, metrics)

    # The running mean takes one step for a whole batch.
    return one_update(as_groups(tx), loss_fn, per_example=False, state=start)
