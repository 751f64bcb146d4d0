"""Adaptive risk minimisation: a context, the mean of what a network says of a domain's examples."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxtl.form import BELOW_1, Size, checked
from jaxtl.losses import supervised
from jaxtl.methods.generalize.domain_means import averaged, domain_means, meant_domains, updated
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import Network, apply_flat
from jaxtl.models.layers import Conv
from jaxtl.plan import Method, Model, Module, Params, PyTree, StageShape, State, Statistics

CONTEXT = "context"


class InContext(NamedTuple):
    """Inputs of a `context_model`, with the context in which it sees them.

    Attributes:
        inputs: [n, ..., channels] float.
        context: [n, ..., context channels].
    """

    inputs: jax.Array
    context: jax.Array


@dataclasses.dataclass(frozen=True)
class ContextBeside:
    """`Network.before` of a model with more input channels, zeros where it is told no context."""

    before: Callable[[jax.Array], jax.Array]
    channels: int

    def __call__(self, values: jax.Array | InContext) -> jax.Array:
        if isinstance(values, InContext):
            inputs, context = self.before(values.inputs), values.context
        else:
            inputs = self.before(values)
            context = jnp.zeros((*inputs.shape[:-1], self.channels), inputs.dtype)
        return jnp.concatenate([inputs, context.astype(inputs.dtype)], -1)


@checked
def context_model(model: Network, channels: Size = 1) -> Network:
    """The same model with further input channels, for the context of `arm`.

    Args:
        model: of inputs that are one array [n, ..., channels].
        channels: that are put after those of the inputs; as many as the context network has.
    """
    return dataclasses.replace(model, before=ContextBeside(model.before, channels))


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
    `context_model`.

    Evaluation takes a moving average of contexts for all rows, whatever domain they are of: that of
    the stage's unlabelled domains, where there are such (the unseen domain as it looks:
    `unlabelled(target, head)`), otherwise of all sources. The paper takes the mean over the batch
    of test examples that is to be predicted, which must then be of one domain.

    Args:
        network: inputs [n, ...] -> [n, ..., context channels]; `context_network()` if None.
        decay: of the moving average, without the bias of its start.

    Raises:
        ValueError: the stage has fewer than two sources, or the model is none of `context_model` or
            has another number of context channels.

    Zhang et al., "Adaptive Risk Minimization: Learning to Adapt to Domain Shift", NeurIPS 2021.
    arXiv:2007.02931, Section 4.
    """
    network = network or context_network()

    def check(model: Model, params: Params, inputs: PyTree) -> jax.Array:
        """Zeros of the context's shape."""
        before = getattr(model, "before", None)
        if not isinstance(before, ContextBeside):
            raise ValueError("arm tells the model a context: use generalize.context_model(model)")
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


@checked
def context_network(hidden: Sequence[Size] = (64, 64), channels: Size = 1) -> Module:
    """Convolutions of 5 x 5 with ReLU between them, or dense layers on inputs that are no maps.

    That of public code, without its BatchNorm.

    Args:
        hidden: channels of the hidden layers.
        channels: of the context.
    """

    def module(rank: int) -> nn.Module:
        if rank > 2:
            layers = [Conv(width, (5,) * (rank - 2)) for width in (*hidden, channels)]
        else:
            layers = [nn.Dense(width) for width in (*hidden, channels)]
        return nn.Sequential([x for layer in layers[:-1] for x in (layer, nn.relu)] + layers[-1:])

    def init(rng: jax.Array, output: dict, shape: StageShape) -> Params:
        inputs = output["inputs"]
        return module(inputs.ndim).init(rng, inputs)["params"]

    def apply(params: Params, inputs: jax.Array) -> jax.Array:
        return module(inputs.ndim).apply({"params": params}, inputs)

    return Module(init, apply)
