"""Smaller learning rates for earlier blocks."""

import optax

from jaxtl.paths import flatten, nest
from jaxtl.plan import Model


def layerwise(
    model: Model, tx: optax.GradientTransformation, decay: float
) -> optax.GradientTransformation:
    """`tx` with the step of each block multiplied by a power of `decay`.

    The last block's by `decay`, the one before by `decay**2`, and so on down; heads and everything
    else outside the blocks step at the full rate. The whole step is scaled, schedules and decoupled
    weight decay with it, so that each block trains as with a learning rate of its own.

    Args:
        model: gives the order of the blocks.
        decay: in (0, 1]; 0.65 to 0.9 are usual, 1 / 2.6 from layer to layer in Howard & Ruder.

    Howard & Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018.
    arXiv:1801.06146, Section 3.2; a geometric rate for all layers with the head at the full one is
    that of Clark et al., "ELECTRA", ICLR 2020, arXiv:2003.10555.
    """
    depth = {block: len(model.blocks) - i for i, block in enumerate(model.blocks)}

    def factor(path: str) -> float:
        room, *rest = path.split("/")
        return decay ** depth[rest[0]] if room == "backbone" and rest[0] in depth else 1.0

    def scale(updates, params=None):
        return nest({path: factor(path) * leaf for path, leaf in flatten(updates).items()})

    return optax.chain(tx, optax.stateless(scale))
