"""Fine-tuning and its kin: what is loaded from the source, and what of it trains.

What the arguments of all methods mean, here and in the rooms beside, is said once:

    tx           optax transformation of what trains; where its type says so also `Groups`, {name:
                 (path patterns, transformation)}: the first group that matches a parameter trains
                 it, what no group matches and a group called "frozen" stay as they are
    trainable    path patterns of what trains
    lambdas      {head: factor of its loss in the supervised objective}, 1 where absent
    weight       factor >= 0 of what a method adds to that objective
    temperature  > 0, divides logits or similarities before a softmax
"""

from jaxtl.methods.transfer.adalora import adalora
from jaxtl.methods.transfer.bi_tuning import bi_tuning
from jaxtl.methods.transfer.bss import bss
from jaxtl.methods.transfer.chains import gradual_unfreezing, linear_probe_then_fine_tune
from jaxtl.methods.transfer.closed_form import logistic, ridge
from jaxtl.methods.transfer.co_tuning import co_tuning
from jaxtl.methods.transfer.delta import delta
from jaxtl.methods.transfer.distillation import distill
from jaxtl.methods.transfer.ewc import ewc, online_ewc
from jaxtl.methods.transfer.feature_distillation import distill_features
from jaxtl.methods.transfer.fine_tuning import full, grouped, partial, probe, supervised_update
from jaxtl.methods.transfer.fisher import empirical_fisher, exact_fisher
from jaxtl.methods.transfer.l2_sp import l2_sp
from jaxtl.methods.transfer.layerwise import layerwise
from jaxtl.methods.transfer.lora_plus import lora_plus
from jaxtl.methods.transfer.lwf import lwf
from jaxtl.methods.transfer.mixup import mixup
from jaxtl.methods.transfer.sam import asam, sam
from jaxtl.methods.transfer.selective import bitfit, norm_tuning
from jaxtl.methods.transfer.soups import greedy_soup, interpolate, uniform_soup
from jaxtl.methods.transfer.statistics import refresh_statistics
from jaxtl.methods.transfer.teachers import Teacher
from jaxtl.methods.transfer.wise_ft import anchored, wise_ft
