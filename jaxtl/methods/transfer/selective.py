"""Fine-tuning of a few parameters that the model already has: biases, or norms."""

from collections.abc import Sequence

import optax

from jaxtl.methods.transfer.fine_tuning import grouped
from jaxtl.plan import Method


def bitfit(
    tx: optax.GradientTransformation,
    *,
    biases: Sequence[str] = ("backbone/(.*/)?bias",),
    heads: Sequence[str] = ("heads/.*",),
) -> Method:
    """Biases and heads train; those of norms are biases too.

    Args:
        biases: path patterns.
        heads: path patterns; only those of heads that have labels train.

    Ben Zaken et al., "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
    Language-models", 2022. arXiv:2106.10199.
    """
    return grouped({"all": ((*biases, *heads), tx)})


def norm_tuning(
    tx: optax.GradientTransformation,
    *,
    norms: Sequence[str] = (r"backbone/(.*/)?norm\w*/(scale|bias)",),
    heads: Sequence[str] = ("heads/.*",),
) -> Method:
    """Scales and shifts of norms, and heads, train.

    The statistics of a BatchNorm whose scale trains follow the data, as anywhere.

    Args:
        norms: path patterns.
        heads: path patterns; only those of heads that have labels train.

    Frankle et al., "Training BatchNorm and Only BatchNorm", 2021, arXiv:2003.00152, with frozen
    random features; Qi et al., 2022, arXiv:2211.08315, for the layer norms of transformers.
    """
    return grouped({"all": ((*norms, *heads), tx)})
