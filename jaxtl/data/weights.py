"""Weights per example for `Domain.example_weights`: {column: labels [n]} -> [n] float32.

Mean one over the examples with a label; one without (-1) has weight 0, in alignment terms too.
"""

from collections.abc import Callable, Mapping

import numpy as np

from jaxtl.paths import unknown

Weights = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def balanced(column: str = "label") -> Weights:
    """Each class counts the same: n / (C n_c), over the C classes that occur."""
    return _per_class(column, lambda counts: 1 / counts)


def effective_number(beta: float, column: str = "label") -> Weights:
    """Proportional to (1 - beta) / (1 - beta^n_c), scaled to mean one over the examples.

    The paper scales the class weights to sum C; that differs by a constant factor.

    Args:
        beta: in [0, 1); 0 weights all examples the same, 1 is the limit `balanced`.

    Cui et al., "Class-balanced loss based on effective number of samples", 2019, arXiv:1901.05555.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be in [0, 1), got {beta}")
    return _per_class(column, lambda counts: (1 - beta) / (1 - beta**counts))


def _per_class(column: str, weight: Callable[[np.ndarray], np.ndarray]) -> Weights:
    def weights(labels: Mapping[str, np.ndarray]) -> np.ndarray:
        if column not in labels:
            raise ValueError(unknown("label column", column, labels))
        if not np.issubdtype(labels[column].dtype, np.integer) or labels[column].ndim > 1:
            raise ValueError(
                f"weights by class need one class an example; label column {column!r} holds "
                f"{labels[column].dtype}{list(labels[column].shape[1:])}"
            )
        known = labels[column] >= 0
        _, index, counts = np.unique(labels[column][known], return_inverse=True, return_counts=True)
        values = np.zeros(len(known), np.float32)
        if len(index):
            raw = weight(counts.astype(np.float64))[index]
            values[known] = raw / raw.mean()
        return values

    return weights
