"""Manifold embedded distribution alignment: a kernel classifier whose outputs agree in mean."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from jaxtl.methods.adapt.shallow.aligned import Aligned, Classifier, Sample, check_rounds
from jaxtl.methods.adapt.shallow.aligned import alignment as alignment_stage
from jaxtl.methods.adapt.shallow.classifiers import comparing_with_examples, keep_examples, padded
from jaxtl.methods.adapt.shallow.gfk import align_on_geodesic
from jaxtl.methods.adapt.shallow.jda import mean_gaps
from jaxtl.methods.transfer.linear_fit import ridge_fit
from jaxtl.plan import Head, Method, Params, PyTree, State


def meda(
    *,
    dim: int = 20,
    alignment: float = 10.0,
    smoothness: float = 1.0,
    ridge: float = 0.1,
    neighbours: int = 10,
    rounds: int = 10,
    capacity: int = 4096,
) -> Method:
    """Structural risk on the geodesic's features, with aligned means and a smooth outcome.

    The features of `gfk`, scaled to length 1, have the kernel exp(-|z - z'|^2 / 2). Pseudo-labels
    start from the nearest neighbour there. The weight between marginal and class means comes from
    the A-distances of `balance`.

    Args:
        dim: of the subspaces of `gfk`.
        alignment: the paper's lambda.
        smoothness: the paper's rho, of the graph's Laplacian.
        ridge: the paper's eta.
        neighbours: of an example in the graph.
        rounds: of coefficients and pseudo-labels.
        capacity: largest number of examples of all domains; the state has this size.

    Raises:
        ValueError: when it runs, there are more examples, or the domains do not fit.

    Wang, Feng, Chen, Yu, Huang, Yu, "Visual Domain Adaptation with Manifold Embedded Distribution
    Alignment", ACM MM 2018. arXiv:1807.07258, Eq. 12 and Algorithm 1.
    """
    check_rounds(rounds)

    def align(source, labels, target, classify) -> Aligned:
        return align_on_geodesic(source, target, dim)

    def deploy(aligned: Aligned, sample: Sample, params: Params, state: State):
        z = np.concatenate([sample.source, sample.target])
        z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
        memory = keep_examples(aligned, z, capacity)
        n, labels = len(sample.source), sample.labels
        kernel, laplacian = gaussian(z, z), graph_laplacian(z, neighbours)
        truth = np.zeros((len(z), sample.classes))
        truth[np.arange(n), labels] = 1
        pseudo = labels[(z[n:] @ z[:n].T).argmax(1)]
        for _ in range(rounds):
            gaps = mean_gaps(labels, pseudo, len(z) - n)
            share = balance(z[:n], labels, z[n:], pseudo)
            penalty = alignment * aligned_means(gaps, share)
            penalty += smoothness * laplacian
            coefficients = solve(kernel, truth, n, penalty, ridge)
            pseudo = (kernel[n:] @ coefficients).argmax(1)
        memory["coefficients"] = padded(np.float32(coefficients), capacity)
        return params, state._replace(method=memory)

    def blank(head: Head) -> dict[str, jax.Array]:
        return {"coefficients": jnp.zeros((capacity, head.size))}

    def scores(memory: PyTree, z: jax.Array, classes: int) -> jax.Array:
        z = z / jnp.maximum(jnp.linalg.norm(z, axis=1, keepdims=True), 1e-12)
        squares = (z**2).sum(1)[:, None] + (memory["examples"] ** 2).sum(1)[None]
        return jnp.exp(z @ memory["examples"].T - squares / 2) @ memory["coefficients"]

    attributes = comparing_with_examples(scores, blank, capacity)
    return alignment_stage(align, Classifier(None, deploy, attributes), width=2 * dim)


def gaussian(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[n, m]: exp(-|x - y|^2 / 2)."""
    return np.exp(-scipy.spatial.distance.cdist(x, y, "sqeuclidean") / 2)


def graph_laplacian(z: np.ndarray, neighbours: int) -> np.ndarray:
    """[n, n]: I - D^-1/2 W D^-1/2, W the cosines of examples of which one is near the other.

    Args:
        z: [n, width] of length 1.
        neighbours: the nearest by cosine, the example itself not counted; negative cosines are 0.
    """
    cosine = z @ z.T
    np.fill_diagonal(cosine, -np.inf)
    count = min(neighbours, len(z) - 1)
    near = np.zeros(cosine.shape, bool)
    np.put_along_axis(near, np.argpartition(-cosine, count - 1, 1)[:, :count], True, 1)
    graph = np.where(near | near.T, np.maximum(cosine, 0), 0)
    degree = graph.sum(1)
    root = np.where(degree > 0, 1 / np.sqrt(np.where(degree > 0, degree, 1)), 0)
    return np.eye(len(z)) - root[:, None] * graph * root


def aligned_means(gaps: np.ndarray, share: float) -> np.ndarray:
    """M [n, n] of the first gap and of the others, of Frobenius norm 1 as in the authors' program.

    Args:
        gaps: [1 + classes, n] of `jda.mean_gaps`.
        share: of the classes in [0, 1]; the marginal gap counts as much as all of them.
    """
    count = len(gaps) - 1
    factors = np.concatenate([[(1 - share) * max(count, 1)], np.full(count, share)])
    rows = gaps * np.sqrt(factors)[:, None]
    matrix = rows.T @ rows
    return matrix / max(np.linalg.norm(matrix), 1e-12)


def balance(
    source: np.ndarray, labels: np.ndarray, target: np.ndarray, pseudo: np.ndarray
) -> float:
    """The share of the classes' means, the paper's mu: 1 - d_all / (d_all + mean_c d_c).

    d is the A-distance 2 (1 - 2 error), not below 0, of a linear classifier of the domain, ridge
    regression fitted on every other example and tested on the rest. Where all are 0, the share is
    1/2.
    """

    def distance(first: np.ndarray, second: np.ndarray) -> float:
        x = np.concatenate([first, second])
        sign = np.r_[np.ones(len(first)), -np.ones(len(second))]
        fitted, tested = slice(0, None, 2), slice(1, None, 2)
        solved = ridge_fit(x[fitted], sign[fitted, None], (1.0,))
        scores = (x[tested] @ solved.kernel + solved.bias)[:, 0]
        return max(0.0, 2 * (1 - 2 * float((scores * sign[tested] <= 0).mean())))

    marginal = distance(source, target)
    shared = np.intersect1d(labels, pseudo)
    pairs = [(source[labels == c], target[pseudo == c]) for c in shared]
    distances = [distance(*pair) for pair in pairs if min(map(len, pair)) > 1]
    by_class = float(np.mean(distances)) if distances else 0.0
    return by_class / (marginal + by_class) if marginal + by_class > 0 else 0.5


def solve(
    kernel: np.ndarray, truth: np.ndarray, n_source: int, penalty: np.ndarray, ridge: float
) -> np.ndarray:
    """Coefficients [n, classes] of ((E + penalty) K + ridge I) b = E Y, E = 1 for source examples.

    Args:
        kernel: K [n, n].
        truth: Y [n, classes], one-hot, zeros for the target.
        n_source: number of source examples, which come first.
        penalty: [n, n], the alignment and the Laplacian with their factors.
        ridge: > 0.
    """
    matrix = penalty @ kernel + ridge * np.eye(len(kernel))
    matrix[:n_source] += kernel[:n_source]
    return np.linalg.solve(matrix, truth)
