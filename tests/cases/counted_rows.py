"""A model whose rows are counted where they are computed."""

import logging

import flax.linen as nn
import jax

from jaxtl import models
from jaxtl.models import Block, from_blocks

ROWS: list[int] = []
logger = logging.getLogger("counted rows")
"""What a program calls back counts towards its fingerprint; a logger has no content."""


class _Counting(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        ROWS.append(record.args[0])


logger.setLevel(logging.INFO)
logger.addHandler(_Counting())
logger.propagate = False


class Counted(nn.Module):
    """Dense; says how many rows it is evaluated on."""

    features: int = 6

    @nn.compact
    def __call__(self, x):
        if not self.is_initializing():
            jax.debug.callback(lambda x: logger.info("%d", len(x)), x)
        return nn.Dense(self.features)(x)


def counted_model(heads=None, **options):
    """Blocks a and b; the first one counts."""
    heads = heads or {"label": models.classes(3)}
    return from_blocks([Block("a", Counted(**options), nn.relu), Block("b", nn.Dense(4))], heads)


def rows_computed() -> int:
    """Rows that programs were evaluated on since the last call, repeated ones included."""
    jax.effects_barrier()
    count = sum(ROWS)
    ROWS.clear()
    return count
