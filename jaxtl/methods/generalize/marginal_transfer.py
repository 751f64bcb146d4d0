"""Marginal transfer learning: the classifier sees an example and where it comes from."""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import BELOW_1, checked
from jaxtl.losses import supervised
from jaxtl.methods.adapt.sides import flat_features
from jaxtl.methods.generalize.domain_means import averaged, domain_means, meant_domains, updated
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method, Model, Module, Params, PyTree, StageShape, State, Statistics

EMBEDDING = "domain_embedding"


@checked
def marginal_transfer(
    tx: optax.GradientTransformation | Groups, *, decay: Annotated[float, BELOW_1] = 0.99
) -> Method:
    """The supervised objective, every head on (features, mean features of the domain).

    The mean is over the examples of a domain in the batch, by their weights, and has a gradient. On
    the concatenation a linear head is the model's own plus one of the mean, which is the network
    `domain_embedding`.

    Evaluation takes a moving average of the mean for all rows, whatever domain they are of: that of
    the stage's unlabelled domains, where there are such (the unseen domain as it looks, without a
    label: `unlabelled(target, head)`), otherwise of all sources. The paper, and public code with
    batches of the test domain, take the mean of the test data.

    Args:
        decay: of the moving average, without the bias of its start.

    Raises:
        ValueError: the stage has fewer than two sources.

    Blanchard et al., "Domain Generalization by Marginal Transfer Learning", JMLR 2021.
    arXiv:1711.07910; with networks as in Gulrajani & Lopez-Paz, 2021, arXiv:2007.01434.
    """

    def initial_network(rng: jax.Array, output: dict, shape: StageShape) -> Params:
        width = output["features"].reshape(len(output["features"]), -1).shape[1]
        kernel = jax.nn.initializers.lecun_normal()
        return {
            name: kernel(jax.random.fold_in(rng, i), (width, size))
            for i, (name, size) in enumerate(shape.classes.items())
        }

    def embed(params: Params, mean: jax.Array) -> dict[str, jax.Array]:
        """{head: [..., size]} of means [..., width]."""
        return {name: mean @ kernel for name, kernel in params.items()}

    def initial(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        meant_domains(shape.roles)
        return averaged(jnp.zeros(len(next(iter(params[EMBEDDING].values())))))

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        means = domain_means(flat_features(output), batch.present)  # [domains, width]
        logits = dict(output["logits"])
        for name, shift in embed(params[EMBEDDING], means).items():
            logits[name] = logits[name] + shift[None]
        loss, _ = supervised(model.heads, logits, batch)
        state = state._replace(method=updated(state.method, means, batch, decay))
        return loss, (state, {})

    def predict(model: Model, params: Params, state: State, inputs: PyTree):
        output, _ = model.apply(params, state.statistics, inputs)
        logits = dict(output["logits"])
        for name, shift in embed(params[EMBEDDING], state.method["mean"]).items():
            logits[name] = logits[name] + shift[None]
        return {**output, "logits": logits}

    return one_update(
        as_groups(tx),
        loss_fn,
        per_example=False,
        modules={EMBEDDING: Module(initial_network, embed)},
        state=initial,
        predict=predict,
    )
