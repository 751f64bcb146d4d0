"""What pretraining on two views of each example shares: the views, and what is made of them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxtl.methods.adapt.sides import as_rows
from jaxtl.plan import Batch, Model, Module, Params, PyTree, StageShape, State

PROJECTOR, PREDICTOR = "projector", "predictor"

Augment = Callable[[jax.Array, PyTree], PyTree]


def unlabelled_rows(batch: Batch) -> PyTree:
    """The inputs [n, ...] of a batch, of all domains.

    Raises:
        ValueError: a domain names a head, which nothing here would train.
    """
    if batch.labels:
        raise ValueError(
            f"pretraining reads no labels and trains no head, but a domain names "
            f"{', '.join(sorted(batch.labels))}: write unlabelled(dataset), without a head"
        )
    return as_rows(batch.inputs)


def two_views(augment: Augment, rng: jax.Array, inputs: PyTree) -> PyTree:
    """[2 n, ...], first one view of each of n examples, then another."""
    views = [augment(key, inputs) for key in jax.random.split(rng)]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *views)


def other_views(rows: jax.Array) -> jax.Array:
    """[2 n, ...] with the halves exchanged: in the place of each view the other one."""
    return jnp.roll(rows, len(rows) // 2, axis=0)


def encode(
    model: Model, params: Params, state: State, inputs: PyTree, rng: jax.Array
) -> tuple[jax.Array, State]:
    """(features [n, width] float32 in training, the state with new batch statistics)."""
    output, statistics = model.apply(params, state.statistics, inputs, rng=rng, train=True)
    return flat(output["features"]), state._replace(statistics=statistics)


def on_features(network: Module) -> Module:
    """A network that reads features as `encode` gives them, whatever their shape."""

    def init(rng: jax.Array, output: dict, shape: StageShape) -> Params:
        return network.init(rng, {**output, "features": flat(output["features"])}, shape)

    return Module(init, network.apply)


def on_outputs(network: Module, projector: Module) -> Module:
    """A predictor: it reads what a projector puts out, and has as many outputs.

    Its `init` raises ValueError if it has another number.
    """

    def init(rng: jax.Array, output: dict, shape: StageShape) -> Params:
        def project() -> jax.Array:
            return projector.apply(projector.init(rng, output, shape), flat(output["features"]))

        expected = jax.eval_shape(project)
        output = {**output, "features": jnp.zeros(expected.shape)}
        params = network.init(rng, output, shape)
        size, wanted = jax.eval_shape(network.apply, params, expected).shape[-1], expected.shape[-1]
        if size != wanted:
            raise ValueError(
                f"the predictor has {size} outputs, the projector {wanted}; give one that fits, "
                f"such as predictor=models.mlp_head((32,), {wanted}, batch_norm=True)"
            )
        return params

    return Module(init, network.apply)


def flat(features: jax.Array) -> jax.Array:
    """[n, width] float32 of features [n, ...]."""
    return features.reshape(len(features), -1).astype(jnp.float32)


def unit(vectors: jax.Array) -> jax.Array:
    """[n, width], each of length 1; those of length 0 stay, with a gradient of 0."""
    return vectors * jax.lax.rsqrt(jnp.sum(vectors**2, -1, keepdims=True) + 1e-12)


def spread(vectors: jax.Array) -> jax.Array:
    """How far vectors [n, width] of length 1 differ, 0 where all are one: they have collapsed.

    The standard deviation over the examples, the mean over the width, times sqrt(width): about 1
    for directions that are uniform (Chen & He, 2021, Section 4.1, divide by that).
    """
    return jax.lax.stop_gradient(unit(vectors).std(0).mean() * jnp.sqrt(vectors.shape[-1]))
