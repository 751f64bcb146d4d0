"""SagNet: what an image shows must do for the class; what it looks like must not."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import checked
from jaxtl.losses import supervised
from jaxtl.methods.adapt.sides import Weight, at_step, classes_of, head_of
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat, mlp_head
from jaxtl.models.mix_style import style
from jaxtl.plan import Method, Module, Params, StageShape

STYLE = "style"


@checked
def sagnet(
    tx: optax.GradientTransformation | Groups,
    *,
    block: str,
    weight: Weight = 0.1,
    style_network: Module | None = None,
) -> Method:
    """The supervised objective of maps with random styles, and an adversary that reads styles.

    Of the maps that `block` puts out, mean and deviation of a channel are an example's style, and
    what is left its content. Three terms are added up, with a gradient each: (1) the supervised
    objective where every style is share * its own + (1 - share) * a partner's, share ~ U(0, 1) for
    each example; (2) the class by the style network, from maps whose content is a partner's, for
    that network alone; (3) weight * the cross-entropy of that network's prediction with equal
    probabilities, for the blocks up to `block` alone. Partners are any examples of the batch, of
    whatever domain; it reads no domains, so that one source is enough.

    The paper steps along the three one after the other, public code too. As in public code the
    partner's content is a constant, and (3) moves all parameters of those blocks; deviations are
    mixed as in the paper, in public code variances.

    Args:
        block: of the model that puts out maps [n, ..., channels], and that another follows.
        weight: the paper's lambda_adv.
        style_network: maps [n, ..., channels] -> [n, classes], whose `init` gets what `block` puts
            out as the features; by default one hidden layer of 100 on the flat maps. In the paper
            it is as deep as the rest of the model.

    Raises:
        ValueError: there is no such block, it puts out no maps, or the stage has other than one
            head, of classes.

    Nam et al., "Reducing Domain Gap by Reducing Style Bias", CVPR 2021. arXiv:1910.11645, Eq. 1 to
    6.
    """

    network = style_network or on_flat_maps(mlp_head((100,), classes_of))

    def init(rng: jax.Array, output: dict, shape: StageShape) -> Params:
        maps = output["after"](block)
        if maps.ndim < 3:
            raise ValueError(
                f"sagnet needs maps [n, ..., channels], block {block!r} puts out {list(maps.shape)}"
            )
        return network.init(rng, {**output, "features": maps}, shape)

    def loss_fn(model, params, state, batch, rng, step):
        first, rest = model.cut(block)
        head = head_of(batch)
        output, state = apply_flat(first, params, state, batch.inputs, rng=rng, train=True)
        lead = batch.present.shape
        maps = output["features"].reshape(-1, *output["features"].shape[2:])
        share_key, content_key, style_key = jax.random.split(jax.random.fold_in(rng, 1), 3)
        weights = batch.present.reshape(-1)

        mixed = random_styles(share_key, style_key, maps, weights)
        mixed = mixed.reshape(*lead, *maps.shape[1:])
        output, state = apply_flat(rest, params, state, mixed, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)

        styled = random_contents(content_key, maps, weights)
        constant = jax.lax.stop_gradient
        of_style = network.apply(params[STYLE], constant(styled)).reshape(*lead, -1)
        style_task, _ = supervised(model.heads, {head: of_style}, batch)
        against = jax.nn.log_softmax(network.apply(constant(params[STYLE]), styled))
        undecided = -jnp.mean(jnp.where(weights > 0, weights * against.mean(-1), 0))
        loss = task + style_task + at_step(weight, step) * undecided
        metrics = {"task_loss": task, "style_loss": style_task, "style_confusion": undecided}
        return loss, (state, metrics)

    return one_update(
        as_groups(tx), loss_fn, per_example=False, modules={STYLE: Module(init, network.apply)}
    )


def on_flat_maps(network: Module) -> Module:
    """A network that reads maps [n, ...] as rows [n, features]."""

    def init(rng: jax.Array, output: dict, shape: StageShape) -> Params:
        features = output["features"]
        return network.init(rng, {**output, "features": features.reshape(len(features), -1)}, shape)

    def apply(params: Params, maps: jax.Array) -> jax.Array:
        return network.apply(params, maps.reshape(len(maps), -1))

    return Module(init, apply)


def random_styles(
    share_key: jax.Array, order_key: jax.Array, maps: jax.Array, weights: jax.Array
) -> jax.Array:
    """Maps [n, ..., channels] whose styles are mixed with those of partners: the paper's Eq. 1."""
    mean, deviation = style(maps)
    partner = present_partners(order_key, weights)
    share = jax.random.uniform(share_key, (len(maps), *(1,) * (maps.ndim - 1)))
    content = (maps - mean) / deviation
    mean, deviation = (share * x + (1 - share) * x[partner] for x in (mean, deviation))
    return content * deviation + mean


def random_contents(order_key: jax.Array, maps: jax.Array, weights: jax.Array) -> jax.Array:
    """Maps of an example's own style and a partner's content, a constant: the paper's Eq. 3."""
    mean, deviation = style(maps)
    content = jax.lax.stop_gradient((maps - mean) / deviation)
    return content[present_partners(order_key, weights)] * deviation + mean


def present_partners(rng: jax.Array, weights: jax.Array) -> jax.Array:
    """[n] int, the batch in another order; where that has padding, the example itself."""
    order = jax.random.permutation(rng, len(weights))
    return jnp.where(weights[order] > 0, order, jnp.arange(len(weights)))
