"""Autoencoders: features from which the inputs can be computed again, whole or spoilt ones."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import Size, checked
from jaxtl.methods.pretrain.views import Augment, encode, flat, on_features, unlabelled_rows
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import mlp_head
from jaxtl.plan import Method, Module, Params, PyTree, StageShape

DECODER = "decoder"


def autoencoder(
    tx: optax.GradientTransformation | Groups,
    *,
    corrupt: Augment | None = None,
    decoder: Module | None = None,
) -> Method:
    """The mean squared difference of inputs and what a decoder makes of their features.

    Args:
        corrupt: (rng, inputs [n, ...]) -> inputs, what the encoder sees instead, such as
            `data.gaussian_noise(0.3)`: a denoising autoencoder. The inputs as they are, if None.
        decoder: features [n, width] -> [n, elements of an input]; `dense_decoder()` if None.

    Hinton & Salakhutdinov, "Reducing the Dimensionality of Data with Neural Networks", Science
    2006; Vincent et al., "Extracting and Composing Robust Features with Denoising Autoencoders",
    ICML 2008.
    """
    decoder = on_features(decoder or dense_decoder())

    def loss_fn(model, params, state, batch, rng, step):
        inputs = one_float_array(unlabelled_rows(batch))
        seen = inputs if corrupt is None else corrupt(jax.random.fold_in(rng, 1), inputs)
        features, state = encode(model, params, state, seen, rng)
        decoded = decoder.apply(params[DECODER], features)
        return jnp.mean((decoded - flat(inputs)) ** 2), (state, {})

    return one_update(
        as_groups(tx), loss_fn, per_example=True, modules={DECODER: decoder}, unweighted=True
    )


@checked
def dense_decoder(hidden: Sequence[Size] = (256,)) -> Module:
    """A network of dense layers from features to as many outputs as an input has elements.

    Args:
        hidden: widths of the hidden layers, each followed by a ReLU.
    """

    def init(rng: jax.Array, output: dict, shape: StageShape) -> Params:
        elements = one_float_array(output["inputs"])[0].size
        return mlp_head(hidden, elements).init(rng, output, shape)

    return Module(init, mlp_head(hidden, 1).apply)


def one_float_array(inputs: PyTree) -> jax.Array:
    """The inputs [n, ...], which an autoencoder computes again.

    Raises:
        ValueError: they are several arrays, or whole numbers such as token ids.
    """
    leaves = jax.tree.leaves(inputs)
    if len(leaves) != 1 or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        kinds = ", ".join(f"{leaf.dtype}{list(leaf.shape[1:])}" for leaf in leaves)
        raise ValueError(f"an autoencoder computes inputs of one array of floats, got {kinds}")
    return leaves[0]
