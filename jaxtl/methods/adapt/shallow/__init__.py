"""Adaptation of features in closed form or by a few eigenproblems, on the host in float64.

Each method is a pure function of NumPy arrays and a builder that makes it a stage without steps,
on the features of the stage's model.
"""

from jaxtl.methods.adapt.shallow.aligned import Aligned, Classifier, alignment
from jaxtl.methods.adapt.shallow.classifiers import (
    linear_logistic,
    linear_ridge,
    linear_svm,
    nearest_neighbour,
)
from jaxtl.methods.adapt.shallow.coral_map import coral_map
from jaxtl.methods.adapt.shallow.gfk import gfk
from jaxtl.methods.adapt.shallow.jda import jda, tca
from jaxtl.methods.adapt.shallow.jgsa import jgsa
from jaxtl.methods.adapt.shallow.kliep import kliep
from jaxtl.methods.adapt.shallow.kmm import kmm
from jaxtl.methods.adapt.shallow.meda import meda
from jaxtl.methods.adapt.shallow.ot_map import ot_map
from jaxtl.methods.adapt.shallow.subspace_alignment import subspace_alignment
from jaxtl.methods.adapt.shallow.tradaboost import tradaboost
from jaxtl.methods.adapt.shallow.unaligned import joint_pca, unaligned
