"""Geodesic flow kernel: features integrated along the path from one subspace to the other."""

import numpy as np

from jaxtl.methods.adapt.shallow.aligned import Aligned, Classifier, alignment
from jaxtl.methods.adapt.shallow.classifiers import nearest_neighbour
from jaxtl.methods.adapt.shallow.eigenproblems import principal
from jaxtl.plan import Method


def gfk(classifier: Classifier | None = None, *, dim: int = 20) -> Method:
    """Examples compared by x' G y, the mean over all subspaces on the geodesic.

    Args:
        classifier: by default the nearest neighbour in that metric.
        dim: of the subspaces; at most half the number of features.

    Gong, Shi, Sha, Grauman, "Geodesic Flow Kernel for Unsupervised Domain Adaptation", CVPR 2012.
    """

    def align(source, labels, target, classify) -> Aligned:
        return align_on_geodesic(source, target, dim)

    return alignment(align, classifier or nearest_neighbour(), width=2 * dim)


def align_on_geodesic(source: np.ndarray, target: np.ndarray, dim: int) -> Aligned:
    """Both domains at x L with G = L L', each centred by its own mean.

    Args:
        source: [n_source, features].
        target: [n_target, features].
        dim: of the subspaces.
    """
    factor = geodesic_factor(principal(source, dim), principal(target, dim))
    return Aligned((source - source.mean(0)) @ factor, factor, -target.mean(0) @ factor)


def geodesic_factor(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """L [features, 2 dim] with L L' = G, the integral over t in [0, 1] of Phi(t) Phi(t)'.

    Phi(t) = A cos(t theta) + B sin(t theta) is the geodesic between the subspaces, with principal
    angles theta. Each angle contributes a 2 x 2 block, Eq. 6 of the paper without its factor 2.

    Args:
        start, end: [features, dim] with orthonormal columns.

    Raises:
        ValueError: dim is more than half the number of features.
    """
    features, dim = start.shape
    if 2 * dim > features:
        raise ValueError(f"dim must be at most {features // 2}, half of the features; got {dim}")
    left, cosine, right = np.linalg.svd(start.T @ end)
    leaving = end @ right.T - start @ (left * cosine)
    sine = np.linalg.norm(leaving, axis=0)
    angle = np.arctan2(sine, cosine)
    leaving = leaving / np.where(sine > 1e-10, sine, 1) * (sine > 1e-10)
    # Integrals of cos^2, cos * sin and sin^2 of t * angle; np.sinc(x) is sin(pi x) / (pi x).
    wave = np.sinc(2 * angle / np.pi)
    mixed = np.sinc(angle / np.pi) * np.sin(angle) / 2
    blocks = np.array([[(1 + wave) / 2, mixed], [mixed, (1 - wave) / 2]]).transpose(2, 0, 1)
    values, vectors = np.linalg.eigh(blocks)
    roots = vectors * np.sqrt(np.maximum(values, 0))[:, None]
    along = [start @ left * roots[:, 0, j] + leaving * roots[:, 1, j] for j in (0, 1)]
    return np.concatenate(along, axis=1)
