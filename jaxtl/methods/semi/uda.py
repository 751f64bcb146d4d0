"""UDA: strong views are predicted as sharpened predictions of weak ones say."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.extra_views import apply_beside
from jaxtl.methods.adapt.sides import Weight, at_step, example_mean, head_of, target_rows
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.plan import Batch, Method, PyTree


def uda(
    tx: optax.GradientTransformation | Groups,
    *,
    strong: Callable[[jax.Array, PyTree], PyTree],
    threshold: float = 0.8,
    temperature: float = 0.4,
    weight: Weight = 1.0,
    annealing: optax.Schedule | None = None,
) -> Method:
    """The supervised objective + weight * KL(sharpened weak || strong) where the weak one is sure.

    Args:
        threshold: of the prediction before it is sharpened.
        temperature: below 1 sharpens it.
        annealing: training signal annealing, step -> share in [0, 1] of the way from 1 / classes to
            1: a labelled example counts only while its class has less probability than that, so
            that few labels are not learned by heart at once. Rising as `lambda step: jnp.exp(5 *
            (step / num_steps - 1))` in the paper with few labels; None for none. The supervised
            mean stays one over all examples, there over those that count.

    Xie et al., "Unsupervised Data Augmentation for Consistency Training", NeurIPS 2020.
    arXiv:1904.12848, Eq. 1 and Sections 2.2 and 3.3.
    """

    def loss_fn(model, params, state, batch, rng, step):
        head = head_of(batch)
        views = strong(jax.random.fold_in(rng, 1), target_rows(batch.inputs, batch))
        weak, seen, state = apply_beside(model, params, state, batch, views, rng)
        counted = batch
        if annealing is not None:
            counted = not_yet_learned(batch, head, weak["logits"][head], annealing(step))
        task, _ = supervised(model.heads, weak["logits"], counted)
        logits, present = target_rows((weak["logits"][head], batch.present), batch)
        logits = jax.lax.stop_gradient(logits)
        sure = (jax.nn.softmax(logits).max(-1) >= threshold).astype(jnp.float32)
        log_p = jax.nn.log_softmax(seen["logits"][head])
        divergences = optax.kl_divergence(log_p, jax.nn.softmax(logits / temperature))
        consistency = example_mean(sure * divergences, present)
        metrics = {"task_loss": task, "consistency": consistency, "sure_share": sure.mean()}
        return task + at_step(weight, step) * consistency, (state, metrics)

    return one_update(as_groups(tx), loss_fn, per_example=True)


def not_yet_learned(batch: Batch, head: str, logits: jax.Array, share: jax.Array) -> Batch:
    """The batch without the labels whose class has much probability already.

    Args:
        logits: [batch, domains, classes] float, constants of the gradient.
        share: [] in [0, 1], how far the limit is from 1 / classes to 1.
    """
    p, floor = jax.nn.softmax(jax.lax.stop_gradient(logits)), 1 / logits.shape[-1]
    labels, weights = jnp.maximum(batch.labels[head], 0), batch.weights[head]
    of_label = jnp.take_along_axis(p, labels[..., None], -1)[..., 0]
    weights = jnp.where(of_label < floor + share * (1 - floor), weights, 0)
    return batch.replace(weights={**batch.weights, head: weights})
