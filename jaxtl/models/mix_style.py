"""MixStyle: while training, feature maps get the means and deviations of other examples."""

from collections.abc import Sequence
from typing import Annotated

import jax
import jax.numpy as jnp

from jaxtl import paths
from jaxtl.form import POSITIVE, SHARE, checked
from jaxtl.models.adapter import Adapter, Call, attach
from jaxtl.plan import Model

NAME = "mix_style"
EPSILON = 1e-6


@checked
def mix_style(
    model: Model,
    after: Sequence[str],
    *,
    alpha: Annotated[float, POSITIVE] = 0.1,
    p: Annotated[float, SHARE] = 0.5,
    domains: int | None = None,
) -> Model:
    """The same model, which mixes statistics across examples between some of its blocks.

    Of a map [height, width, channels] each channel has its mean and its deviation taken out and
    mixed ones put in: share * those of the example + (1 - share) * those of a partner, with
    share ~ Beta(alpha, alpha) for each example. Statistics are constants of the gradient. With
    probability p a whole batch is mixed, after each block by itself; evaluation mixes nothing, and
    no parameters come to the model's. The deviation divides by the number of places, as in the
    paper's Eq. 3 (by one less in public code).

    Args:
        after: names of blocks that are followed by another, such as ("conv_0", "conv_1"); early
            ones, whose statistics are style more than content.
        alpha: 0.1 in the paper, where most shares are near 0 or 1.
        p: 0.5 in the paper.
        domains: of a stage, so that a partner is an example of another domain: rows as
            `apply_flat` puts them. Partners are any of the batch if None. Weights of examples are
            not known here: padding is a partner like any other.

    Raises:
        ValueError: there is no such block or it is the last one; when it is applied, a block puts
            out no maps, there is no random key, or the rows are not of so many domains.

    Zhou et al., "Domain Generalization with MixStyle", ICLR 2021. arXiv:2104.02008.
    """
    if domains is not None and domains < 2:
        raise ValueError(f"mix_style: partners of other domains need two or more, got {domains}")
    names = model.blocks
    for name in after:
        if name not in names:
            raise ValueError(f"mix_style, `after`: {paths.unknown('block', name, names)}")
        if name == names[-1]:
            raise ValueError(
                f"mix_style, `after`: no block follows {name!r}, the last of {', '.join(names)}"
            )
    followers = {names[names.index(name) + 1]: name for name in after}

    def change(call: Call) -> Call:
        if not call.train or call.block.name not in followers:
            return call
        place = followers[call.block.name]
        if call.rng is None:
            raise ValueError("mix_style draws partners: give `apply` an rng when train is true")
        if call.inputs.ndim < 3:
            raise ValueError(
                f"mix_style needs maps [n, ..., channels], block {place!r} puts out "
                f"{list(call.inputs.shape)}"
            )
        key = paths.key(call.rng, f"{NAME}/{place}")
        return call._replace(inputs=mixed_styles(key, call.inputs, alpha, p, domains))

    adapter = Adapter(
        NAME,
        start=lambda model, params, statistics, inputs, key: {},
        change=change,
        merge=lambda model, params: params,  # evaluation is that of the model without it
    )
    return attach(model, adapter)


def mixed_styles(
    rng: jax.Array, maps: jax.Array, alpha: float, p: float, domains: int | None
) -> jax.Array:
    """Maps [n, ..., channels] with mixed statistics, or as they are with probability 1 - p."""
    coin, order, beta = jax.random.split(rng, 3)
    mean, deviation = style(maps)
    partner = partners(order, len(maps), domains)
    shape = (len(maps), *(1,) * (maps.ndim - 1))
    share = jax.random.beta(beta, alpha, alpha, shape).astype(mean.dtype)
    mean, deviation = map(jax.lax.stop_gradient, (mean, deviation))
    content = (maps - mean) / deviation

    def mixed(values: jax.Array) -> jax.Array:
        return share * values + (1 - share) * values[partner]

    result = content * mixed(deviation) + mixed(mean)
    return jnp.where(jax.random.bernoulli(coin, p), result, maps).astype(maps.dtype)


def style(maps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(mean, deviation) over the places of maps [n, ..., channels], with those axes of size 1."""
    maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
    axes = tuple(range(1, maps.ndim - 1))
    mean = maps.mean(axes, keepdims=True)
    return mean, jnp.sqrt(maps.var(axes, keepdims=True) + EPSILON)


def partners(rng: jax.Array, rows: int, domains: int | None) -> jax.Array:
    """[rows] int, a permutation; none has a partner of its own domain where domains are told."""
    if domains is None:
        return jax.random.permutation(rng, rows)
    if rows % domains:
        raise ValueError(f"mix_style: {rows} rows are not of {domains} domains")
    row_key, turn_key = jax.random.split(rng)
    order = jax.random.permutation(row_key, rows // domains)
    turn = jax.random.randint(turn_key, (), 1, domains)
    others = (jnp.arange(domains) + turn) % domains
    return (order[:, None] * domains + others[None]).reshape(-1)
