"""Joint adaptation networks: features and predictions whose joint kernel embeddings agree."""

import jax
import optax

from jaxtl.losses import joint_mmd, supervised
from jaxtl.losses.kernels import MEAN_BANDWIDTHS, Bandwidths
from jaxtl.methods.adapt.sides import Weight, at_step, flat_features, head_of, rows_by_side
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method

PROBABILITY_BANDWIDTHS = (2 * 0.92**2,)


def jan(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight = 1.0,
    feature_bandwidths: Bandwidths = MEAN_BANDWIDTHS,
    class_bandwidths: Bandwidths = PROBABILITY_BANDWIDTHS,
    unbiased: bool = False,
) -> Method:
    """The supervised objective + weight * the joint MMD of features and probabilities.

    The quadratic estimate, where the paper takes the linear-time one; gradients flow through the
    probabilities too.

    Args:
        weight: the paper's lambda.
        feature_bandwidths: of the features' Gaussian kernels, as in `losses.mmd`.
        class_bandwidths: of those of the probabilities; by default one, exp(-d^2 / (2 0.92^2)), as
            in the authors' code.
        unbiased: the U-statistic, which can be negative.

    Long et al., "Deep Transfer Learning with Joint Adaptation Networks", ICML 2017.
    arXiv:1605.06636.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        sides = rows_by_side((flat_features(output), output["logits"][head_of(batch)]), batch)
        layers = [(features, jax.nn.softmax(logits)) for features, logits in sides]
        distance = joint_mmd(
            *layers,
            *rows_by_side(batch.present, batch),
            bandwidths=(feature_bandwidths, class_bandwidths),
            unbiased=unbiased,
        )
        loss = task + at_step(weight, step) * distance
        return loss, (state, {"task_loss": task, "joint_mmd": distance})

    return one_update(as_groups(tx), loss_fn, per_example=False)
