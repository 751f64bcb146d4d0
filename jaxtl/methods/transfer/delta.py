"""DELTA: feature maps that stay near those of the starting point, where they matter."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import attended_distance, supervised
from jaxtl.methods.teacher import copy_student
from jaxtl.methods.transfer.channel_attention import channel_attention
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update, trained_paths
from jaxtl.models import apply_flat
from jaxtl.paths import flatten, nest, unknown
from jaxtl.plan import Columns, Method, Model, Params, PyTree, StageShape, State, Statistics


def delta(
    tx: optax.GradientTransformation | Groups,
    *,
    blocks: Mapping[str, int],
    feature_penalty: float = 0.01,
    head_penalty: float = 0.01,
    temperature: float = 1.0,
    examples: int = 256,
    lambdas: Mapping[str, float] | None = None,
) -> Method:
    """Fine-tuning with a pull of chosen blocks' outputs towards those of the starting point.

    Adds feature_penalty / 2 * sum over blocks of `attended_distance`, summed over the domains and
    labels or none, and head_penalty / 2 * |theta|^2 over the heads that train. The optimizer should
    have no weight decay of its own.

    The network at the starting point runs like the one that trains: with the same dropout, and
    with the statistics of the batch where BatchNorm is live (public code runs it in evaluation
    mode). So the distance begins at 0.

    Args:
        blocks: {block: channels of its output}, such as the stages of a ResNet; the outputs are
            arrays [n, ..., channels].
        feature_penalty: the paper's alpha >= 0.
        head_penalty: the paper's beta >= 0.
        temperature: of the softmax over the channels; 1 is the paper's.
        examples: most labelled examples that the attention is computed on, see
            `channel_attention` for its cost.

    Raises:
        ValueError: when it runs, a block does not exist or has other channels.

    Li et al., "DELTA: DEep Learning Transfer using Feature Map with Attention for Convolutional
    Networks", ICLR 2019. arXiv:1901.09229.
    """
    groups = as_groups(tx)

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        if strange := sorted(blocks.keys() - set(model.blocks)):
            raise ValueError(" ".join(unknown("block", name, model.blocks) for name in strange))
        attention = {block: jnp.zeros(channels) for block, channels in blocks.items()}
        return {"teacher": copy_student(groups, params, {}), "attention": attention}

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        attention = channel_attention(model, params, state, domains, blocks, examples, temperature)
        channels = {block: len(shares) for block, shares in attention.items()}
        if channels != dict(blocks):
            raise ValueError(f"the blocks have {channels} channels, not {dict(blocks)}.")
        return params, state._replace(method={**state.method, "attention": attention})

    def block_outputs(model, params, state, inputs, rng):
        """({block: its output}, output, state) in training; each block runs once."""
        maps = {}
        for block in [name for name in model.blocks if name in blocks]:
            first, model = model.cut(block)
            output, state = apply_flat(first, params, state, inputs, rng=rng, train=True)
            inputs = maps[block] = output["features"]
        output, state = apply_flat(model, params, state, inputs, rng=rng, train=True)
        return maps, output, state

    def loss_fn(model, params, state, batch, rng, step):
        flat, attention = flatten(params), state.method["attention"]
        teacher = nest(flat | flatten(state.method["teacher"]["params"]))
        reference, _, _ = block_outputs(model, teacher, state, batch.inputs, rng)
        maps, output, state = block_outputs(model, params, state, batch.inputs, rng)
        loss, metrics = supervised(model.heads, output["logits"], batch, lambdas)
        distance = sum(
            attended_distance(maps[block], reference[block], shares)
            for block, shares in attention.items()
        )
        domains = jax.tree.leaves(batch.inputs)[0].shape[1]
        trained = trained_paths(groups, params, heads=batch.labels)
        heads = {path: flat[path] for path in trained if path.startswith("heads/")}
        metrics |= {
            "feature_penalty": feature_penalty / 2 * domains * distance,
            "head_penalty": head_penalty / 2 * optax.tree.norm(heads, squared=True),
        }
        return loss + metrics["feature_penalty"] + metrics["head_penalty"], (state, metrics)

    return one_update(groups, loss_fn, per_example=True, state=start, prepare=prepare)
