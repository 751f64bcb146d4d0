"""Manifold embedded distribution alignment: a kernel classifier whose outputs agree in mean."""

import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import cdist

from jaxtl.methods.adapt.shallow.aligned import at_least_one, one_hot, read_sample, unlabelled
from jaxtl.methods.adapt.shallow.classifiers import padded
from jaxtl.methods.adapt.shallow.gfk import align_on_geodesic
from jaxtl.methods.adapt.shallow.jda import mean_gaps
from jaxtl.methods.transfer.linear_fit import ridge_fit
from jaxtl.plan import Columns, Method, Model, Params, PyTree, StageShape, State, Statistics


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

    at_least_one(rounds)

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        sample = read_sample(model, params, state, domains)
        unlabelled(sample)
        found = align_on_geodesic(sample.source, sample.target, dim)
        z = np.concatenate([found.source, sample.target @ found.projection + found.offset])
        z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
        padded(z, capacity)
        n, labels = len(sample.source), sample.labels
        kernel, laplacian = gaussian(z, z), graph_laplacian(z, neighbours)
        truth = one_hot(np.concatenate([labels, np.full(len(z) - n, -1)]), sample.classes)
        pseudo = labels[(z[n:] @ z[:n].T).argmax(1)]
        for _ in range(rounds):
            gaps = mean_gaps(labels, pseudo, len(z) - n)
            penalty = alignment * aligned_means(gaps, balance(z[:n], labels, z[n:], pseudo))
            penalty += smoothness * laplacian
            coefficients = solve(kernel, truth, n, penalty, ridge)
            pseudo = (kernel[n:] @ coefficients).argmax(1)
        kept = {
            "projection": np.float32(found.projection),
            "offset": np.float32(found.offset),
            "examples": padded(np.float32(z), capacity),
            "coefficients": padded(np.float32(coefficients), capacity),
        }
        return params, state._replace(method=kept)

    def initial(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        del statistics
        ((name, head),) = model.heads.items()
        return {
            "projection": jnp.zeros((params["heads"][name]["kernel"].shape[0], 2 * dim)),
            "offset": jnp.zeros(2 * dim),
            "examples": jnp.zeros((capacity, 2 * dim)),
            "coefficients": jnp.zeros((capacity, head.size)),
        }

    def predict(model: Model, params: Params, state: State, inputs: PyTree) -> dict:
        kept, (name,) = state.method, model.heads
        output, _ = model.apply(params, state.statistics, inputs)
        features = output["features"].reshape(len(output["features"]), -1)
        z = features @ kept["projection"] + kept["offset"][None]
        z = z / jnp.maximum(jnp.linalg.norm(z, axis=1, keepdims=True), 1e-12)
        squares = (z**2).sum(1)[:, None] + (kept["examples"] ** 2).sum(1)[None]
        values = jnp.exp(z @ kept["examples"].T - squares / 2)
        return {**output, "logits": {name: values @ kept["coefficients"]}}

    attributes = {"fresh_frozen": True, "aligns": True, "unweighted": True}
    return Method(prepare=prepare, state=initial, predict=predict, **attributes)


def gaussian(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[n, m]: exp(-|x - y|^2 / 2)."""
    return np.exp(-cdist(one, other, "sqeuclidean") / 2)


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

    def distance(one: np.ndarray, other: np.ndarray) -> float:
        x = np.concatenate([one, other])
        sign = np.r_[np.ones(len(one)), -np.ones(len(other))]
        fitted, tested = slice(0, None, 2), slice(1, None, 2)
        solved = ridge_fit(x[fitted], sign[fitted, None], (1.0,))
        guess = (x[tested] @ solved.kernel + solved.bias)[:, 0]
        return max(0.0, 2 * (1 - 2 * float((guess * sign[tested] <= 0).mean())))

    whole = distance(source, target)
    shared = np.intersect1d(labels, pseudo)
    pairs = [(source[labels == c], target[pseudo == c]) for c in shared]
    each = [distance(*pair) for pair in pairs if min(map(len, pair)) > 1]
    each = float(np.mean(each)) if each else 0.0
    return each / (whole + each) if whole + each > 0 else 0.5


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
