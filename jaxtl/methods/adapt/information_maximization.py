"""Information maximisation: predictions on the target, each sure and all together diverse."""

import optax

from jaxtl import losses
from jaxtl.methods.adapt.sides import Weight, at_step, head_of, target_rows
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


def information_maximization(
    tx: optax.GradientTransformation | Groups, *, weight: Weight = 0.1
) -> Method:
    """The supervised objective - weight * the mutual information of target inputs and predictions.

    The metric `information_loss` is the mean entropy minus the entropy of the mean prediction.

    Krause et al., "Discriminative Clustering by Regularized Information Maximization", NeurIPS
    2010; on a target domain Shi & Sha, ICML 2012. arXiv:1206.6438.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = losses.supervised(model.heads, output["logits"], batch)
        logits = output["logits"][head_of(batch)]
        information = losses.information_maximization(*target_rows((logits, batch.present), batch))
        loss = task + at_step(weight, step) * information
        return loss, (state, {"task_loss": task, "information_loss": information})

    return one_update(as_groups(tx), loss_fn, per_example=False)
