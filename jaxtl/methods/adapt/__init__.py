"""Domain adaptation: from labelled source domains to targets whose labels no method sees."""

from jaxtl.methods.adapt.adda import adda
from jaxtl.methods.adapt.adversary import domain_loss, reversed_domain_loss, with_opponent
from jaxtl.methods.adapt.afn import afn
from jaxtl.methods.adapt.bnm import bnm
from jaxtl.methods.adapt.bsp import bsp
from jaxtl.methods.adapt.can import can
from jaxtl.methods.adapt.catalogue import catalogue, slow_optimizers
from jaxtl.methods.adapt.cdan import cdan, cdan_e
from jaxtl.methods.adapt.cmd import cmd
from jaxtl.methods.adapt.dan import dan
from jaxtl.methods.adapt.dann import dann, domain_term
from jaxtl.methods.adapt.deep_coral import deep_coral, deep_coral_features
from jaxtl.methods.adapt.deep_jdot import deep_jdot
from jaxtl.methods.adapt.dirt_t import dirt_t
from jaxtl.methods.adapt.dsan import dsan
from jaxtl.methods.adapt.entropy_minimization import entropy_minimization
from jaxtl.methods.adapt.fix_match import fix_match
from jaxtl.methods.adapt.information_maximization import information_maximization
from jaxtl.methods.adapt.iwan import iwan
from jaxtl.methods.adapt.jan import jan
from jaxtl.methods.adapt.mcc import mcc
from jaxtl.methods.adapt.mcd import mcd
from jaxtl.methods.adapt.mdd import mdd
from jaxtl.methods.adapt.mean_teacher import mean_teacher
from jaxtl.methods.adapt.osbp import osbp
from jaxtl.methods.adapt.pada import pada
from jaxtl.methods.adapt.rejecting import rejecting
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
from jaxtl.methods.adapt.shot import class_centroids, nearest, shot, shot_im
from jaxtl.methods.adapt.sides import (
    Side,
    adapted,
    at_step,
    head_of,
    objective,
    regularised,
    split_sides,
)
from jaxtl.methods.adapt.t3a import t3a
from jaxtl.methods.adapt.tent import tent
from jaxtl.methods.adapt.vada import vada
from jaxtl.methods.adapt.wdgrl import wdgrl

__all__ = [
    "Side",
    "adapted",
    "adda",
    "afn",
    "alignment",
    "at_step",
    "bnm",
    "bsp",
    "can",
    "catalogue",
    "cdan",
    "cdan_e",
    "class_centroids",
    "cmd",
    "coral_map",
    "dan",
    "dann",
    "deep_coral",
    "deep_coral_features",
    "deep_jdot",
    "dirt_t",
    "domain_loss",
    "domain_term",
    "dsan",
    "entropy_minimization",
    "fix_match",
    "gfk",
    "head_of",
    "information_maximization",
    "iwan",
    "jan",
    "jda",
    "jgsa",
    "joint_pca",
    "kliep",
    "kmm",
    "linear_logistic",
    "linear_ridge",
    "linear_svm",
    "mcc",
    "mcd",
    "mdd",
    "mean_teacher",
    "meda",
    "nearest",
    "nearest_neighbour",
    "objective",
    "osbp",
    "ot_map",
    "pada",
    "regularised",
    "rejecting",
    "reversed_domain_loss",
    "self_training",
    "shot",
    "shot_im",
    "slow_optimizers",
    "split_sides",
    "subspace_alignment",
    "t3a",
    "tca",
    "tent",
    "tradaboost",
    "unaligned",
    "vada",
    "wdgrl",
    "with_opponent",
]
