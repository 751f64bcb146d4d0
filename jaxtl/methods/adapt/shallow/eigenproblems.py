"""Leading solutions of the eigenproblems that alignments come down to."""

from collections.abc import Callable

import numpy as np
import scipy


def principal(x: np.ndarray, dim: int) -> np.ndarray:
    """[features, dim], the orthonormal directions of largest variance, largest first.

    Raises:
        ValueError: the examples do not span so many.
    """
    most = min(len(x) - 1, x.shape[1])
    if not 0 < dim <= most:
        raise ValueError(
            f"dim must be between 1 and {most} for {len(x)} examples of {x.shape[1]} features; "
            f"got {dim}"
        )
    return pencil((x - x.mean(0)).T)(np.zeros((0, x.shape[1])), dim)[0]


Leading = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def pencil(factor: np.ndarray, base: np.ndarray | None = None) -> Leading:
    """Solver of the generalised eigenproblems F F' v = value * (base + G'G) v for several G.

    What does not depend on G is computed once, and G, of few rows, enters by Woodbury's identity.

    Args:
        factor: F [size, r].
        base: [size, size], positive definite; None for the identity.

    Returns:
        (G [rows, size], dim) -> (vectors [size, dim], values [dim]), largest first, with
        v' (base + G'G) v = 1.

    Raises:
        ValueError: by the solver, dim is not between 1 and the smaller size of the factor.
    """
    most = min(factor.shape)
    if factor.shape[1] > factor.shape[0]:
        values, vectors = scipy.linalg.eigh(factor @ factor.T)
        factor = vectors * np.sqrt(np.maximum(values, 0))
    root = None if base is None else np.linalg.cholesky(base)

    def halved(columns: np.ndarray, trans: int = 0) -> np.ndarray:
        if root is None:
            return columns
        return scipy.linalg.solve_triangular(root, columns, trans, lower=True)

    white = halved(factor)
    gram = white.T @ white

    def leading(gaps: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 < dim <= most:
            raise ValueError(f"dim must be between 1 and {most}; got {dim}")
        apart = halved(gaps.T)
        share = np.linalg.solve(np.eye(len(gaps)) + apart.T @ apart, apart.T @ white)
        values, vectors = _largest(gram - (apart.T @ white).T @ share, dim)
        solutions = halved(white @ vectors - apart @ (share @ vectors), trans=1)
        return solutions / np.sqrt(np.maximum(values, np.finfo(np.float64).tiny)), values

    return leading


def _largest(matrix: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues [dim] of a symmetric matrix, descending, and their vectors."""
    size = len(matrix)
    if 5 * dim < size:
        values, vectors = scipy.sparse.linalg.eigsh(matrix, dim, v0=np.ones(size))
        order = np.argsort(-values)
        return values[order], vectors[:, order]
    values, vectors = scipy.linalg.eigh(matrix, subset_by_index=[size - dim, size - 1])
    return values[::-1], vectors[:, ::-1]


def unit_scale(*parts: np.ndarray) -> float:
    """The factor that gives the rows of all parts together a mean squared length of 1."""
    squares = sum((part**2).sum() for part in parts)
    return float(np.sqrt(sum(map(len, parts)) / squares)) if squares else 1.0
