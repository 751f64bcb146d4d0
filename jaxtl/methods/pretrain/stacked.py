"""Greedily stacked autoencoders: one block after another learns to keep what it is given."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from jaxtl.methods.pretrain.autoencoder import DECODER, one_float_array
from jaxtl.methods.pretrain.views import Augment, flat, unlabelled_rows
from jaxtl.methods.transfer.fine_tuning import one_update
from jaxtl.models import mlp_head
from jaxtl.paths import unknown
from jaxtl.plan import Method, Model, Module, Params, PyTree, Stage, StageShape, Statistics


def stacked_autoencoders(
    stage: Stage, tx: optax.GradientTransformation, *, corrupt: Augment | None = None
) -> list[Stage]:
    """A stage for each block of the model, in order, whose method is `block_autoencoder`.

    Args:
        stage: gives the name, model, domains, batch size and the number of steps of each block; its
            method is replaced.
        tx: its state starts anew in each stage.
        corrupt: what a block sees instead of its inputs, (rng, [n, ...]) -> [n, ...].

    Hinton & Salakhutdinov, Science 2006, with Boltzmann machines; Bengio et al., "Greedy Layer-Wise
    Training of Deep Networks", NeurIPS 2006; Vincent et al., "Stacked Denoising Autoencoders", JMLR
    2010.
    """
    return [
        dataclasses.replace(
            stage,
            name=f"{stage.name}_{block}",
            method=block_autoencoder(tx, model=stage.model, block=block, corrupt=corrupt),
            fresh=stage.fresh if i == 0 else (),
        )
        for i, block in enumerate(stage.model.blocks)
    ]


def block_autoencoder(
    tx: optax.GradientTransformation,
    *,
    model: Model,
    block: str,
    corrupt: Augment | None = None,
) -> Method:
    """The mean squared difference of a block's inputs and a linear map of its outputs.

    The blocks before it are as they were loaded, those after it and the heads wait.

    Args:
        model: of the stage; it says of which sizes the block's inputs and outputs are.
        block: name of the block.
        corrupt: what the block sees instead of its inputs, (rng, [n, ...]) -> [n, ...].

    Raises:
        ValueError: the model has no such block.
    """
    if block not in model.blocks:
        raise ValueError(unknown("block", block, model.blocks))

    def init(rng: jax.Array, output: dict, shape: StageShape) -> Params:
        def pass_on(key: jax.Array, inputs: PyTree) -> tuple[PyTree, jax.Array]:
            params, statistics = model.init(key, inputs)
            given, alone = inputs_of_block(model, block, params, statistics, inputs)
            return given, alone.apply(params, statistics, given)[0]["features"]

        given, features = jax.eval_shape(pass_on, rng, output["inputs"])
        zeros = {"features": flat(jnp.zeros(features.shape))}
        return mlp_head((), one_float_array(given).size).init(rng, zeros, shape)

    decoder = Module(init, mlp_head((), 1).apply)

    def loss_fn(model, params, state, batch, rng, step):
        rows = unlabelled_rows(batch)
        given, alone = inputs_of_block(model, block, params, state.statistics, rows)
        given = jax.lax.stop_gradient(one_float_array(given))
        seen = given if corrupt is None else corrupt(jax.random.fold_in(rng, 1), given)
        output, statistics = alone.apply(params, state.statistics, seen, rng=rng, train=True)
        decoded = decoder.apply(params[DECODER], flat(output["features"]))
        loss = jnp.mean((decoded - flat(given)) ** 2)
        return loss, (state._replace(statistics=statistics), {})

    return one_update(
        {"all": ((f"backbone/{block}/.*", f"{DECODER}/.*"), tx)},
        loss_fn,
        per_example=True,
        modules={DECODER: decoder},
        unweighted=True,
        fresh_frozen=True,  # blocks that come later wait for their turn
    )


def inputs_of_block(
    model: Model, block: str, params: Params, statistics: Statistics, inputs: PyTree
) -> tuple[PyTree, Model]:
    """(what a block is given for inputs [n, ...], in evaluation; the model of this block alone)."""
    place = model.blocks.index(block)
    if place == 0:
        return inputs, model.cut(block)[0]
    first, rest = model.cut(model.blocks[place - 1])
    given, _ = first.apply(params, statistics, inputs)
    return given["features"], rest.cut(block)[0]
