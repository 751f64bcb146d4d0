"""Models: named blocks and heads around linen modules, as pure functions.

Arguments that architectures share:

    heads      {name: Head}: a dense layer for each, on the flattened features.
    before     pure function of the inputs, such as `standardize(mean, std)`.
    normalize  (mean, std) of the pixels, scalars or one number a channel; None leaves them.
    remat      compute each layer again in the backward pass, which takes about a third more time
               and keeps only the layers' inputs in memory (Chen et al., 2016, arXiv:1604.06174).
               XLA's default scheduler on a CPU keeps them all the same; with the flag
               `--xla_cpu_enable_concurrency_optimized_scheduler=false` it does not.

`mmoe`, `cgc`, `ple`, `cross_stitch`, `task_attention`, `task_embedding` and `per_task` make of any
model one whose heads read features of their own. A path with the part `..._for_<head>` is that
head's; what all share is `backbone/(?!.*_for_).*`. The features are those of all heads, side by
side in their order.
"""

from jaxtl.models.adapter import Adapter
from jaxtl.models.bert import BertConfig, bert
from jaxtl.models.blocks import Block, standardize
from jaxtl.models.context import context_model, context_network
from jaxtl.models.conv_net import cifar_conv_net, conv_4, conv_net
from jaxtl.models.convolution import convolve, max_pool
from jaxtl.models.cross_stitch import cross_stitch
from jaxtl.models.domain_norm import domain_norm
from jaxtl.models.efficientnet_lite import efficientnet_lite
from jaxtl.models.episodes import episode_head, episode_logits, fixed_block
from jaxtl.models.from_functions import from_functions
from jaxtl.models.from_linen import from_linen
from jaxtl.models.from_nnx import from_nnx
from jaxtl.models.heads import binary, classes, mlp_head, regression
from jaxtl.models.indices import index_bounds
from jaxtl.models.lenet import lenet
from jaxtl.models.mix_style import mix_style
from jaxtl.models.mlp import linear, mlp
from jaxtl.models.mmoe import mmoe
from jaxtl.models.model import (
    Network,
    apply_flat,
    from_blocks,
    read_by,
)
from jaxtl.models.outputs import forward, in_batches, outputs, to_float
from jaxtl.models.per_task import of_task, per_task
from jaxtl.models.ple import cgc, ple
from jaxtl.models.precision import computing_in
from jaxtl.models.reader import support_reader
from jaxtl.models.resnet import resnet
from jaxtl.models.stoch_norm import stoch_norm
from jaxtl.models.task_attention import task_attention
from jaxtl.models.task_embedding import task_embedding
from jaxtl.models.vit import ViTConfig, vit
