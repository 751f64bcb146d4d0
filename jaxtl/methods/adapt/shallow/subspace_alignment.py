"""Subspace alignment: the principal directions of the source are turned towards the target's."""

import numpy as np

from jaxtl.methods.adapt.shallow.aligned import Aligned, Classifier, alignment
from jaxtl.methods.adapt.shallow.classifiers import nearest_neighbour
from jaxtl.methods.adapt.shallow.eigenproblems import principal
from jaxtl.plan import Method


def subspace_alignment(classifier: Classifier | None = None, *, dim: int = 30) -> Method:
    """Source and target each in their own principal directions, the source's then aligned.

    Directions without a counterpart in the target shrink towards 0 in the source only. Distances
    then neglect them, but a linear classifier with little penalty weighs them up again, which can
    hurt: give it a strong penalty or few directions.

    Args:
        classifier: by default the nearest neighbour.
        dim: number of principal directions; the paper derives a bound, the other methods here
            take 20 to 30.

    Fernando, Habrard, Sebban, Tuytelaars, "Unsupervised Visual Domain Adaptation Using Subspace
    Alignment", ICCV 2013, Algorithm 1.
    """

    def align(source, labels, target, classify) -> Aligned:
        return align_subspaces(source, target, dim)

    return alignment(align, classifier or nearest_neighbour(), width=dim)


def align_subspaces(source: np.ndarray, target: np.ndarray, dim: int) -> Aligned:
    """Source at X_s P_s (P_s' P_t), target at X_t P_t, each domain centred by its own mean.

    Args:
        source: [n_source, features].
        target: [n_target, features].
        dim: number of principal directions, P_s and P_t [features, dim].
    """
    source_axes, target_axes = principal(source, dim), principal(target, dim)
    aligned = (source - source.mean(0)) @ source_axes @ (source_axes.T @ target_axes)
    return Aligned(aligned, target_axes, -target.mean(0) @ target_axes)
