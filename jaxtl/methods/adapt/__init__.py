"""Domain adaptation: from labelled source domains to targets whose labels no method sees.

The roles of a stage's domains say which are sources and which are targets. Labels train wherever a
domain is `labelled`: sources, and also a target that has a few labels, which says so by its role
(three streams: `labelled(source, head)`, `labelled(few, head, role="target")`,
`unlabelled(target, head)`). All domains name one head.

Several sources are one side, pooled, but for the methods that weigh them or give each a network of
its own: `mdan`, `mdan_hard`, `darn`, `m3sda`, `m3sda_beta`.

What looks at examples without their labels weighs them by `present`, the examples' own weights: a
weight of 2 is an example that is there twice. Where examples are coupled (kernels, covariances,
transport, a critic) only the proportions within a side count, or frequencies as the loss says; a
mean over examples divides by their number, as the supervised objective does.

Arguments of many builders, explained here alone:

    tx        optax transformation of all parameters, of the method's networks too; or groups as in
              `transfer.grouped`
    weight    factor of what is added to the supervised objective, or step -> factor
    reversal  coefficient >= 0 of a gradient reversal, or step -> coefficient, such as
              `losses.reversal_schedule(num_steps)`
"""

from jaxtl.methods.adapt.adda import adda
from jaxtl.methods.adapt.afn import afn
from jaxtl.methods.adapt.bnm import bnm
from jaxtl.methods.adapt.bsp import bsp
from jaxtl.methods.adapt.can import can
from jaxtl.methods.adapt.catalogue import catalogue, slow_optimizers
from jaxtl.methods.adapt.cdan import cdan, cdan_e
from jaxtl.methods.adapt.cmd import cmd
from jaxtl.methods.adapt.dan import dan
from jaxtl.methods.adapt.dann import dann
from jaxtl.methods.adapt.darn import darn
from jaxtl.methods.adapt.deep_coral import deep_coral, deep_coral_features
from jaxtl.methods.adapt.deep_jdot import deep_jdot
from jaxtl.methods.adapt.dirt_t import dirt_t
from jaxtl.methods.adapt.dsan import dsan
from jaxtl.methods.adapt.entropy_minimization import entropy_minimization
from jaxtl.methods.adapt.fix_match import fix_match
from jaxtl.methods.adapt.information_maximization import information_maximization
from jaxtl.methods.adapt.iwan import iwan
from jaxtl.methods.adapt.jan import jan
from jaxtl.methods.adapt.m3sda import m3sda, m3sda_beta
from jaxtl.methods.adapt.mcc import mcc
from jaxtl.methods.adapt.mcd import mcd
from jaxtl.methods.adapt.mdan import mdan, mdan_hard
from jaxtl.methods.adapt.mdd import mdd
from jaxtl.methods.adapt.mean_teacher import mean_teacher
from jaxtl.methods.adapt.osbp import osbp
from jaxtl.methods.adapt.pada import pada
from jaxtl.methods.adapt.reject_unsure import reject_unsure
from jaxtl.methods.adapt.self_training import self_training
from jaxtl.methods.adapt.shallow import (
    alignment,
    coral_map,
    gfk,
    jda,
    jgsa,
    joint_pca,
    kliep,
    kmm,
    linear_logistic,
    linear_ridge,
    linear_svm,
    meda,
    nearest_neighbour,
    ot_map,
    subspace_alignment,
    tca,
    tradaboost,
    unaligned,
)
from jaxtl.methods.adapt.shot import shot, shot_im
from jaxtl.methods.adapt.t3a import t3a
from jaxtl.methods.adapt.tent import tent
from jaxtl.methods.adapt.vada import vada
from jaxtl.methods.adapt.wdgrl import wdgrl
