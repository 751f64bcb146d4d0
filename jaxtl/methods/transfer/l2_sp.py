"""L2-SP: weights that stay near those they started from."""

from collections.abc import Mapping, Sequence

import optax

from jaxtl.losses import supervised
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update, trained_paths
from jaxtl.models import apply_flat
from jaxtl.paths import flatten, select, split
from jaxtl.plan import Method, Model, Params, StageShape, Statistics


def l2_sp(
    tx: optax.GradientTransformation | Groups,
    *,
    anchor_penalty: float = 0.01,
    head_penalty: float = 0.01,
    anchors: Sequence[str] = ("backbone/.*",),
    lambdas: Mapping[str, float] | None = None,
) -> Method:
    """Fine-tuning with a pull towards the starting point in place of one towards 0.

    Adds anchor_penalty / 2 * |theta - theta_0|^2 over the parameters of the anchors and
    head_penalty / 2 * |theta|^2 over all others that train. theta_0 is what the stage starts from,
    so anchors should be loaded, not fresh. As in the paper all parameters count, biases and
    normalisation included; leave them out of the anchors to decay them instead. The optimizer
    should have no weight decay of its own.

    Args:
        anchor_penalty: the paper's alpha >= 0.
        head_penalty: the paper's beta >= 0.
        anchors: path patterns.

    Li et al., "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", ICML
    2018. arXiv:1802.01483.
    """
    groups = as_groups(tx)

    def starting_point(
        model: Model, params: Params, statistics: Statistics, shape: StageShape
    ) -> Params:
        anchored = select(anchors, flatten(params)) & trained_paths(groups, params)
        return split(params, anchored.__contains__)[0]

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        loss, metrics = supervised(model.heads, output["logits"], batch, lambdas)
        flat, start = flatten(params), flatten(state.method)
        others = trained_paths(groups, params, heads=batch.labels) - start.keys()
        distance = optax.tree.norm({path: flat[path] - start[path] for path in start}, squared=True)
        size = optax.tree.norm({path: flat[path] for path in others}, squared=True)
        metrics |= {
            "anchor_penalty": anchor_penalty / 2 * distance,
            "head_penalty": head_penalty / 2 * size,
        }
        return loss + metrics["anchor_penalty"] + metrics["head_penalty"], (state, metrics)

    return one_update(groups, loss_fn, per_example=True, state=starting_point)
