"""Debiased self-training: pseudo-labels teach another head, and the worst head is kept harmless."""

from collections.abc import Callable

import jax
import optax

from jaxtl.losses import margin_disparity, reverse_gradient, supervised
from jaxtl.methods.adapt.adversary import second_classifier
from jaxtl.methods.adapt.extra_views import apply_beside
from jaxtl.methods.adapt.self_training import confident_cross_entropy
from jaxtl.methods.adapt.sides import (
    Weight,
    as_rows,
    at_step,
    flat_features,
    head_of,
    labelled_weights,
    target_rows,
)
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.plan import Method, Module

PSEUDO, WORST = "pseudo_head", "worst_head"


def dst(
    tx: optax.GradientTransformation | Groups,
    *,
    strong: Callable[[jax.Array, jax.Array], jax.Array],
    threshold: float = 0.7,
    weight: Weight = 1.0,
    worst_weight: Weight = 1.0,
    reversal: Weight = 0.1,
    margin: float = 2.0,
    pseudo_head: Module | None = None,
    worst_head: Module | None = None,
) -> Method:
    """The supervised objective + weight * a second head's loss + worst_weight * a third one's.

    The model's head learns from labels alone and makes the pseudo-labels; the second head learns
    them on strong views, and hands their gradient to the features. The third one agrees with the
    model's head on labelled examples and errs on the others as much as it can, behind a gradient
    reversal: features on which no such head can err much are less biased. The model's head
    predicts; the others stay behind. The authors' code learns a strong view of the labelled
    examples too.

    Args:
        threshold: 0.7 in the authors' code with pretrained weights.
        worst_weight: the paper's factor of its worst case.
        reversal: coefficient of the gradient reversal, >= 0; large ones undo the features.
        margin: factor of the agreement on labelled examples, eta' in the code.
        pseudo_head, worst_head: features [n, width] -> [n, classes]; linear if None, one hidden
            layer in the code.

    Chen et al., "Debiased Self-Training for Semi-Supervised Learning", NeurIPS 2022.
    arXiv:2202.07136, Eq. 7.
    """
    pseudo, worst = second_classifier(pseudo_head), second_classifier(worst_head)

    def loss_fn(model, params, state, batch, rng, step):
        head = head_of(batch)
        views = strong(jax.random.fold_in(rng, 1), target_rows(batch.inputs, batch))
        weak, seen, state = apply_beside(model, params, state, batch, views, rng)
        task, _ = supervised(model.heads, weak["logits"], batch)

        logits, present = target_rows((weak["logits"][head], batch.present), batch)
        strong_features = seen["features"].reshape(len(logits), -1)
        taught = pseudo.apply(params[PSEUDO], strong_features)
        pseudo_loss, share = confident_cross_entropy(taught, logits, threshold, present)

        reversed_features = reverse_gradient(flat_features(weak), at_step(reversal, step))
        erring = worst.apply(params[WORST], reversed_features)
        labelled = as_rows((weak["logits"][head], erring, labelled_weights(batch)))
        target_erring = target_rows(erring, batch)
        disparity = margin_disparity(
            *labelled[:2],
            logits,
            target_erring,
            source_weights=labelled[2],
            target_weights=present,
            margin=margin,
        )
        loss = task + at_step(weight, step) * pseudo_loss
        loss += at_step(worst_weight, step) * disparity
        metrics = {"task_loss": task, "pseudo_loss": pseudo_loss, "worst_loss": disparity}
        return loss, (state, metrics | {"pseudo_share": share})

    modules = {PSEUDO: pseudo, WORST: worst}
    return one_update(as_groups(tx), loss_fn, per_example=False, modules=modules)
