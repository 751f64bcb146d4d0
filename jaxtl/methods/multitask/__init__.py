"""Several tasks at once: what their losses weigh, and what becomes of gradients that disagree.

`joint` is the method; each of the others is a rule for it. A task is a head with labels, or a
domain, or a head of a domain.
"""

from jaxtl.methods.multitask.aligned_mtl import aligned_mtl
from jaxtl.methods.multitask.cagrad import cagrad
from jaxtl.methods.multitask.db_mtl import db_mtl
from jaxtl.methods.multitask.dwa import dwa
from jaxtl.methods.multitask.excess_mtl import excess_mtl
from jaxtl.methods.multitask.fairgrad import fairgrad
from jaxtl.methods.multitask.famo import famo
from jaxtl.methods.multitask.gls import gls
from jaxtl.methods.multitask.graddrop import graddrop
from jaxtl.methods.multitask.gradnorm import gradnorm
from jaxtl.methods.multitask.gradvac import gradvac
from jaxtl.methods.multitask.gram import gram_rule
from jaxtl.methods.multitask.imtl import imtl, imtl_g, imtl_l
from jaxtl.methods.multitask.joint import joint
from jaxtl.methods.multitask.mgda import mgda
from jaxtl.methods.multitask.moco import moco
from jaxtl.methods.multitask.nash_mtl import nash_mtl
from jaxtl.methods.multitask.pcgrad import pcgrad
from jaxtl.methods.multitask.rlw import rlw
from jaxtl.methods.multitask.scalarization import equal_weights, scalarization
from jaxtl.methods.multitask.sdmgrad import sdmgrad
from jaxtl.methods.multitask.stch import stch
from jaxtl.methods.multitask.uncertainty_weighting import uncertainty_weighting
from jaxtl.methods.multitask.upgrad import upgrad
