"""Models: named blocks and heads around linen modules, as pure functions."""

from jaxtl.models.conv_net import cifar_conv_net, conv_net
from jaxtl.models.convolution import convolve, max_pool
from jaxtl.models.heads import binary, classes, mlp_head, regression
from jaxtl.models.lenet import lenet
from jaxtl.models.mlp import linear, mlp
from jaxtl.models.model import (
    Block,
    apply_flat,
    from_blocks,
    from_linen,
    is_random,
    parameter_count,
    standardize,
    with_heads,
    with_live,
)
from jaxtl.models.precision import computing_in, with_compute_dtype

__all__ = [
    "Block",
    "apply_flat",
    "binary",
    "cifar_conv_net",
    "classes",
    "computing_in",
    "conv_net",
    "convolve",
    "from_blocks",
    "from_linen",
    "is_random",
    "lenet",
    "linear",
    "max_pool",
    "mlp",
    "mlp_head",
    "parameter_count",
    "regression",
    "standardize",
    "with_compute_dtype",
    "with_heads",
    "with_live",
]
