"""Masked autoencoders: what is hidden of an input is computed from the rest."""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import Limit, Size, checked
from jaxtl.methods.pretrain.autoencoder import DECODER, dense_decoder, one_float_array
from jaxtl.methods.pretrain.views import encode, flat, on_features, unlabelled_rows
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.plan import Method, Module

Part = Annotated[float, Limit("in (0, 1)", lambda value: 0 < value < 1)]


@checked
def masked_autoencoder(
    tx: optax.GradientTransformation | Groups,
    *,
    share: Part = 0.5,
    patch: Size = 1,
    decoder: Module | None = None,
) -> Method:
    """The squared difference of the hidden values and what a decoder makes of the others' features.

    Hidden are square patches of images, or values of a table's row, each with the probability
    `share`; 0 stands in their place. The sum over them is divided by `share` times the number of
    all, their expected number. Works for any model: the paper's encoder, a vision transformer,
    does not get hidden patches at all, and there 3 of 4 are hidden.

    Args:
        patch: side of a patch in pixels, which divides the sides of the image; 1 for tables.
        decoder: features [n, width] -> [n, elements of an input]; `dense_decoder()` if None.

    He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022. arXiv:2111.06377.
    """
    decoder = on_features(decoder or dense_decoder())

    def loss_fn(model, params, state, batch, rng, step):
        inputs = one_float_array(unlabelled_rows(batch))
        hidden = hidden_patches(jax.random.fold_in(rng, 1), inputs.shape, share, patch)
        seen = jnp.where(hidden, 0, inputs)
        features, state = encode(model, params, state, seen, rng)
        decoded = decoder.apply(params[DECODER], features)
        squares = jnp.where(flat(hidden) > 0, (decoded - flat(inputs)) ** 2, 0)
        return jnp.mean(squares) / share, (state, {})

    return one_update(
        as_groups(tx), loss_fn, per_example=True, modules={DECODER: decoder}, unweighted=True
    )


def hidden_patches(rng: jax.Array, shape: tuple[int, ...], share: float, patch: int) -> jax.Array:
    """Which elements are hidden, bool of a shape; the channels of a pixel together.

    Args:
        shape: [n, height, width, channels], or [n, ...] for a patch of 1.
        share: probability of a patch.
        patch: its side.

    Raises:
        ValueError: patches do not fit the shape.
    """
    image = len(shape) == 4
    if patch > 1 and not (image and shape[1] % patch == shape[2] % patch == 0):
        raise ValueError(f"patches of {patch} x {patch} do not fit inputs {list(shape[1:])}")
    coarse = (shape[0], shape[1] // patch, shape[2] // patch, 1) if image else shape
    hidden = jax.random.bernoulli(rng, share, coarse)
    if image:
        hidden = hidden.repeat(patch, 1).repeat(patch, 2)
    return jnp.broadcast_to(hidden, shape)
