"""Small models whose first blocks are frozen, and stages that train the rest."""

import dataclasses
from collections import Counter

import flax.linen as nn
import jax
import optax
from tiny import blobs

from jaxtl.methods import transfer
from jaxtl.models import Block, classes, from_blocks
from jaxtl.plan import Stage, Update, labelled, unlabelled

SEEDS = (0, 1)
HEADS = {"source": classes(3), "target": classes(3)}
FIRST = ("backbone/a/.*",)
EVALUATED = Counter()


class Counted(nn.Module):
    """Dense; counts the examples it is evaluated on."""

    @nn.compact
    def __call__(self, x):
        if not self.is_initializing():
            jax.debug.callback(lambda x: EVALUATED.update(examples=len(x)), x)
        return nn.Dense(6)(x)


class Normed(nn.Module):
    """Dense and BatchNorm."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.BatchNorm(use_running_average=not train, name="norm")(nn.Dense(6, name="d")(x))


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dropout(0.5, deterministic=not train)(nn.Dense(6)(x))


def chain(*layers, heads=HEADS):
    """Blocks a, b, ... with ReLU between them."""
    return from_blocks(
        [Block(n, layer, nn.relu) for n, layer in zip("abc", layers, strict=False)], heads
    )


MLP = chain(nn.Dense(8), nn.Dense(7))


def frozen(*freeze, tx=None):
    """A method that freezes random layers on purpose."""
    method = transfer.partial(tx or optax.adam(1e-2), freeze=freeze)
    return dataclasses.replace(method, fresh_frozen=True)


def stage(model=MLP, method=None, domains=None, batch=8, steps=12):
    domains = domains or [labelled(blobs("target", 24), "target")]
    return Stage(
        "adapt", model, method or frozen(*FIRST), domains=domains, batch_size=batch, num_steps=steps
    )


def several_domains():
    """Of 60 rows most are never drawn; of 40, each seed has its own few; 10 are used up at once."""
    return [
        labelled(blobs("large", 60), "source"),
        labelled(blobs("few", 40, 1.0, seed=1).few(4), {"target": "label", "source": "label"}),
        unlabelled(blobs("small", 10, 2.0, seed=2), "target"),
    ]


def replaced(update):
    """The stage with another loss."""
    return stage(method=dataclasses.replace(frozen(*FIRST), updates=(Update(update),)))
