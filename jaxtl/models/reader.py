"""A small transformer that reads a support as a sequence and answers queries from it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl.form import Size, checked
from jaxtl.models.transformer import TransformerLayer, layer_norm
from jaxtl.plan import Module, Params, StageShape


@checked
def support_reader(
    *, width: Size = 64, layers: Size = 2, num_heads: Size = 4, mlp_width: Size = 128
) -> Module:
    """A network on the support and the queries of an episode.

    A token is a dense layer of an example's features plus one of its label, or plus a learned
    vector for the unknown label of a query. The layers normalise first. Tokens of the support
    attend to the support, each query to the support and itself: a query's answer depends on no
    other query, and on the order of nothing, as there are no positions.

    Returns:
        Module with apply: (params, (support features [n, features], labels [n, outputs], weights
        [n], query features [m, features])) -> [m, outputs]. Weights tell padding from examples and
        nothing more.

    Raises:
        ValueError: the heads do not divide the width.
    """
    if width % num_heads:
        raise ValueError(f"support_reader: {num_heads} heads do not divide a width of {width}.")

    def network(outputs: int) -> nn.Module:
        return _Reader(outputs, width, layers, num_heads, mlp_width)

    def init(rng: jax.Array, output: dict, shape: StageShape) -> Params:
        (outputs,) = shape.classes.values()
        features = output["features"].reshape(output["features"].shape[0], -1)
        labels = jnp.zeros((len(features), outputs), features.dtype)
        inputs = (features, labels, jnp.ones(len(features)), features)
        return network(outputs).init(rng, inputs)["params"]

    def apply(params: Params, inputs: tuple[jax.Array, ...]) -> jax.Array:
        return network(params["output"]["bias"].shape[-1]).apply({"params": params}, inputs)

    return Module(init, apply)


class _Reader(nn.Module):
    outputs: int
    width: int
    layers: int
    num_heads: int
    mlp_width: int

    @nn.compact
    def __call__(self, inputs: tuple[jax.Array, ...]) -> jax.Array:
        support, labels, weights, queries = inputs
        n, total = len(support), len(support) + len(queries)
        unknown = self.param("unknown", nn.initializers.normal(0.02), (self.width,))
        answers = nn.Dense(self.width, use_bias=False, name="label")(labels)
        unknown = jnp.broadcast_to(unknown, (len(queries), self.width)).astype(answers.dtype)
        examples = nn.Dense(self.width, name="example")(jnp.concatenate([support, queries]))
        hidden = (examples + jnp.concatenate([answers, unknown]))[None]
        # A query reads the support and itself; so does padding, which nobody reads.
        of_support = jnp.concatenate([weights > 0, jnp.zeros(len(queries), bool)])
        mask = (of_support[None] | jnp.eye(total, dtype=bool))[None]
        for i in range(self.layers):
            layer = TransformerLayer(
                self.num_heads, self.mlp_width, 1e-6, norm_first=True, name=f"layer_{i}"
            )
            hidden = layer(hidden, mask)
        hidden = layer_norm(1e-6, name="norm")(hidden[0, n:])
        return nn.Dense(self.outputs, name="output")(hidden)
