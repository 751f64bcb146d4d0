"""Adaptive risk minimisation: a context, the mean of what a network says of a domain's examples."""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import BELOW_1, checked
from jaxtl.losses import supervised
from jaxtl.methods.generalize.domain_means import averaged, domain_means, meant_domains, updated
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat, context_network
from jaxtl.models.context import ContextBeside, InContext
from jaxtl.plan import Method, Model, Module, Params, PyTree, StageShape, State, Statistics

CONTEXT = "context"


@checked
def arm(
    tx: optax.GradientTransformation | Groups,
    *,
    network: Module | None = None,
    decay: Annotated[float, BELOW_1] = 0.99,
) -> Method:
    """The supervised objective of inputs beside their domain's context: ARM-CML of the paper.

    The context is the mean, over the examples of a domain in the batch and by their weights, of
    what a network of its own makes of them; it is learned with the rest. The model is one of
    `models.context_model`.

    Evaluation takes a moving average of contexts for all rows, whatever domain they are of: that of
    the stage's unlabelled domains, where there are such (the unseen domain as it looks:
    `unlabelled(target, head)`), otherwise of all sources. The paper takes the mean over the batch
    of test examples that is to be predicted, which must then be of one domain.

    Args:
        network: inputs [n, ...] -> [n, ..., context channels]; `models.context_network()` if None.
        decay: of the moving average, without the bias of its start.

    Raises:
        ValueError: the stage has fewer than two sources, or the model is none of
            `models.context_model` or has another number of context channels.

    Zhang et al., "Adaptive Risk Minimization: Learning to Adapt to Domain Shift", NeurIPS 2021.
    arXiv:2007.02931, Section 4.
    """
    network = network or context_network()

    def check(model: Model, params: Params, inputs: PyTree) -> jax.Array:
        """Zeros of the context's shape."""
        if not hasattr(inputs, "shape"):
            raise ValueError("arm needs inputs that are one array [n, ..., channels]")
        before = getattr(model, "before", None)
        if not isinstance(before, ContextBeside):
            raise ValueError("arm tells the model a context: use models.context_model(model)")
        context = jax.eval_shape(network.apply, params[CONTEXT], inputs)
        if context.shape[-1] != before.channels:
            raise ValueError(
                f"arm: the network gives {context.shape[-1]} channels, the model has room for "
                f"{before.channels}: context_model(model, channels={context.shape[-1]})"
            )
        return jnp.zeros(context.shape[1:])

    def initial(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        meant_domains(shape.roles)
        return averaged(check(model, params, shape.inputs))

    def loss_fn(model, params, state, batch, rng, step):
        size, domains = batch.present.shape
        rows = batch.inputs.reshape(size * domains, *batch.inputs.shape[2:])
        values = network.apply(params[CONTEXT], rows)
        values = values.reshape(size, domains, *values.shape[1:])
        means = domain_means(values, batch.present)
        inputs = InContext(batch.inputs, jnp.broadcast_to(means[None], (size, *means.shape)))
        output, state = apply_flat(model, params, state, inputs, rng=rng, train=True)
        loss, _ = supervised(model.heads, output["logits"], batch)
        state = state._replace(method=updated(state.method, means, batch, decay))
        return loss, (state, {})

    def predict(model: Model, params: Params, state: State, inputs: PyTree):
        context = state.method["mean"]
        context = jnp.broadcast_to(context[None], (len(inputs), *context.shape))
        return model.apply(params, state.statistics, InContext(inputs, context))[0]

    return one_update(
        as_groups(tx),
        loss_fn,
        per_example=False,
        modules={CONTEXT: network},
        state=initial,
        predict=predict,
    )
