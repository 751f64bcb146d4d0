"""Joint geometrical and statistical alignment: one projection a domain, close to each other."""

import numpy as np

from jaxtl.methods.adapt.shallow.aligned import (
    Aligned,
    Classifier,
    Classify,
    alignment,
    check_rounds,
)
from jaxtl.methods.adapt.shallow.classifiers import nearest_neighbour
from jaxtl.methods.adapt.shallow.eigenproblems import pencil, unit_scale
from jaxtl.methods.adapt.shallow.jda import mean_gaps
from jaxtl.plan import Method


def jgsa(
    classifier: Classifier | None = None,
    *,
    dim: int = 30,
    closeness: float = 1.0,
    variance: float = 1.0,
    discrimination: float = 0.1,
    rounds: int = 10,
) -> Method:
    """A projection for each domain: target variance, source classes apart, and means aligned.

    The linear case of the paper, with its defaults. Features are first scaled by one number, to a
    mean squared length of 1, and the matrix M of the means to Frobenius norm 1, as in `meda`; the
    paper states neither.

    Args:
        classifier: gives the pseudo-labels and the predictions; by default the nearest neighbour
            by cosine.
        dim: number of components.
        closeness: the paper's lambda, of the squared distance between the projections.
        variance: the paper's mu, of the target's variance and of the size of its projection.
        discrimination: the paper's beta, of the source's scatter between and within classes.
        rounds: of projections and pseudo-labels; the first has no pseudo-labels.

    Zhang, Li, Ogunbona, "Joint Geometrical and Statistical Alignment for Visual Domain
    Adaptation", CVPR 2017. arXiv:1705.05498, Eq. 12 and Algorithm 1.
    """
    check_rounds(rounds)

    def align(source, labels, target, classify: Classify) -> Aligned:
        factor, pseudo = unit_scale(source, target), None
        source, target = source * factor, target * factor
        scatters = coupled_scatters(source, labels, target, closeness, variance, discrimination)
        leading = pencil(*scatters)
        for _ in range(rounds):
            gaps = mean_gaps(labels, pseudo, len(target))
            gaps = gaps / np.sqrt(np.linalg.norm(gaps @ gaps.T))
            source_gaps = gaps[:, : len(source)] @ source
            target_gaps = gaps[:, len(source) :] @ target
            stacked, _ = leading(np.concatenate([source_gaps, target_gaps], 1), dim)
            source_projection, target_projection = np.split(stacked, 2)
            aligned = Aligned(source @ source_projection, factor * target_projection, np.zeros(dim))
            pseudo = classify(aligned)
        return aligned

    chosen = classifier or nearest_neighbour(cosine=True)
    return alignment(align, chosen, width=dim)


def coupled_scatters(
    source: np.ndarray,
    labels: np.ndarray,
    target: np.ndarray,
    closeness: float,
    variance: float,
    discrimination: float,
) -> tuple[np.ndarray, np.ndarray]:
    """What the stacked projections [A; B] make large and small.

    Args:
        source, target: [n_source, features], [n_target, features].
        labels: [n_source].
        closeness, variance, discrimination: as in `jgsa`.

    Returns:
        (F [2 features, classes + n_target], cost [2 features, 2 features]): they maximise F F',
        with the scatter between classes and the target's, relative to cost + G'G, in which G is
        the differences of means, [gaps, features] of each side by side.
    """
    width, centre = source.shape[1], source.mean(0)
    classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.stack([source[labels == c].mean(0) for c in classes])
    between = (means - centre).T * np.sqrt(discrimination * counts)
    spread = np.sqrt(variance) * (target - target.mean(0)).T
    large = np.block(
        [
            [between, np.zeros(spread.shape)],
            [np.zeros(between.shape), spread],
        ]
    )
    within = (source - means[index]).T @ (source - means[index])
    eye = np.eye(width)
    small = np.block(
        [
            [closeness * eye + discrimination * within, -closeness * eye],
            [-closeness * eye, (closeness + variance) * eye],
        ]
    )
    return large, small
