"""MMD without a target: features whose kernel mean embeddings agree in all domains."""

import functools

import optax

from jaxtl.losses import mmd as distance_of_means
from jaxtl.losses import supervised
from jaxtl.losses.kernels import MEAN_BANDWIDTHS, Bandwidths
from jaxtl.methods.adapt.sides import Weight, at_step, flat_features
from jaxtl.methods.generalize.pairs import mean_of_pairs
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


def mmd(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight = 1.0,
    bandwidths: Bandwidths = MEAN_BANDWIDTHS,
    unbiased: bool = False,
) -> Method:
    """The supervised objective + weight * the mean over pairs of domains of `losses.mmd`.

    Of the features before the heads. The kernel is the mean over its bandwidths, where DomainBed
    takes the sum over seven of them, 500 to 0.0005 times the squared distance. The paper's
    adversarial autoencoder is left out, as there.

    Args:
        bandwidths, unbiased: as in `losses.mmd`.

    Li et al., "Domain Generalization with Adversarial Feature Learning", CVPR 2018, Eq. 3.
    """
    pair = functools.partial(distance_of_means, bandwidths=bandwidths, unbiased=unbiased)

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        distance = mean_of_pairs(pair, flat_features(output), batch)
        task, _ = supervised(model.heads, output["logits"], batch)
        loss = task + at_step(weight, step) * distance
        return loss, (state, {"task_loss": task, "mmd": distance})

    return one_update(as_groups(tx), loss_fn, per_example=False)
