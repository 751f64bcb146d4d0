"""Fishr: the gradients of the head vary as much in one domain as in another."""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import AT_LEAST_0, BELOW_1, checked
from jaxtl.losses import supervised, weighted_losses
from jaxtl.losses.weighting import weigh
from jaxtl.methods.adapt.sides import Weight, at_step, flat_features
from jaxtl.methods.generalize.sources import source_positions
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Batch, Method, Model, Params, StageShape, Statistics


@checked
def fishr(
    tx: optax.GradientTransformation | Groups,
    *,
    warm_up: Annotated[int, AT_LEAST_0],
    weight: Weight = 1000.0,
    decay: Annotated[float, BELOW_1] = 0.95,
) -> Method:
    """The supervised objective + weight * the mean over sources of |v_d - mean v|^2 / numbers.

    v_d is the variance in source d, over its labelled examples, of the gradient of an example's
    loss with respect to each number of the heads. Variances of small batches are averaged over
    steps: v_d = sum_k decay^k v_d(k steps ago), of which the latest has a gradient.

    As in the authors' code, for which the weight is: the squared norm is divided by the numbers of
    the heads, and the average by 1 - decay, so that the latest variance counts as it would without
    averaging. In the paper's Eq. 4 and 6 neither is. The optimizer goes on at the end of the
    warm-up; public code starts it anew, as `restarted` does.
    The objective is the sum over the domains as everywhere, in the paper their mean.

    Args:
        warm_up: steps before the penalty, in which variances are averaged already; 1,500 of 5,000
            in the paper.
        weight: the paper's lambda.
        decay: the paper's gamma.

    Raises:
        ValueError: the stage has fewer than two sources.

    Rame et al., "Fishr: Invariant Gradient Variances for Out-of-Distribution Generalization", ICML
    2022. arXiv:2109.02934.
    """

    def initial(model: Model, params: Params, statistics: Statistics, shape: StageShape):
        sources = len(source_positions(shape.roles))
        return {
            name: jax.tree.map(
                lambda leaf: jnp.zeros((sources, *leaf.shape)), params["heads"][name]
            )
            for name in shape.classes
        }

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        latest = head_gradient_variances(model, output, batch)
        variances = jax.tree.map(lambda old, new: decay * old + new, state.method, latest)
        gaps = jax.tree.map(lambda leaf: leaf - leaf.mean(0, keepdims=True), variances)
        leaves = jax.tree.leaves(gaps)
        penalty = sum(jnp.sum(leaf**2) for leaf in leaves) / sum(leaf.size for leaf in leaves)
        factor = jnp.where(step >= warm_up, at_step(weight, step), 0)
        state = state._replace(method=jax.lax.stop_gradient(variances))
        return task + factor * penalty, (state, {"task_loss": task, "variance_gap": penalty})

    return one_update(as_groups(tx), loss_fn, per_example=False, state=initial)


def head_gradient_variances(model: Model, output: dict, batch: Batch) -> dict[str, Params]:
    """{head: {"kernel": [sources, width, size], "bias": [sources, size]}}, divided by n.

    Args:
        output: of the model, leaves [batch, domains, ...].
        batch: weights of labels count as frequencies; 0 where a source has none.
    """
    sources = list(source_positions(batch.roles))
    features, variances = flat_features(output)[:, sources], {}
    for name in model.heads.keys() & batch.labels.keys():
        labels, weights = (x[name][:, sources] for x in (batch.labels, batch.weights))
        certain = jnp.where(weights > 0, 1.0, 0.0)

        def total(logits: jax.Array, name=name, labels=labels, certain=certain) -> jax.Array:
            return weighted_losses(model.heads[name], logits, labels, certain).sum()

        residuals = jax.grad(total)(output["logits"][name][:, sources])
        examples = weights.reshape(*weights.shape[:2], -1).max(-1)
        per_domain = jax.vmap(_outer_variance, in_axes=1)(features, residuals, examples)
        variances[name] = {"kernel": per_domain[:, :-1], "bias": per_domain[:, -1]}
    return variances


def _outer_variance(features: jax.Array, residuals: jax.Array, weights: jax.Array) -> jax.Array:
    """The variances [width + 1, size] of (features, 1) x residuals; a last row for the bias.

    Both moments are matrix products, so that no gradient of a single example is held.
    """
    features = jnp.concatenate([features, jnp.ones((len(features), 1))], 1)
    both, weights, present = weigh(jnp.concatenate([features, residuals], 1), weights)
    shares = (weights / weights.sum())[:, None]
    features, residuals = both[:, : features.shape[1]], both[:, features.shape[1] :]

    def product(left: jax.Array, right: jax.Array) -> jax.Array:
        return jnp.matmul(left.T, shares * right, precision="highest")

    variance = product(features**2, residuals**2) - product(features, residuals) ** 2
    return jnp.where(present, jnp.maximum(variance, 0), 0)
