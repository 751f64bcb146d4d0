"""Models: named blocks and heads around linen modules, as pure functions."""

from jaxtl.models.adapter import Adapter
from jaxtl.models.bert import BertConfig, bert
from jaxtl.models.blocks import Block, standardize
from jaxtl.models.conv_net import cifar_conv_net, conv_net
from jaxtl.models.convolution import convolve, max_pool
from jaxtl.models.efficientnet_lite import efficientnet_lite
from jaxtl.models.heads import binary, classes, mlp_head, regression
from jaxtl.models.indices import index_bounds
from jaxtl.models.lenet import lenet
from jaxtl.models.mlp import linear, mlp
from jaxtl.models.model import (
    Network,
    apply_flat,
    from_blocks,
    from_functions,
    from_linen,
)
from jaxtl.models.outputs import forward, in_batches, outputs, to_float
from jaxtl.models.precision import computing_in
from jaxtl.models.resnet import resnet
from jaxtl.models.stoch_norm import stoch_norm
from jaxtl.models.vit import ViTConfig, vit

__all__ = [
    "Adapter",
    "BertConfig",
    "Block",
    "Network",
    "ViTConfig",
    "apply_flat",
    "bert",
    "binary",
    "cifar_conv_net",
    "classes",
    "computing_in",
    "conv_net",
    "convolve",
    "efficientnet_lite",
    "forward",
    "from_blocks",
    "from_functions",
    "from_linen",
    "in_batches",
    "index_bounds",
    "lenet",
    "linear",
    "max_pool",
    "mlp",
    "mlp_head",
    "outputs",
    "regression",
    "resnet",
    "standardize",
    "stoch_norm",
    "to_float",
    "vit",
]
