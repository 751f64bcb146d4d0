"""Optimal transport: source examples carried to the target by an entropic plan."""

import numpy as np
import scipy

from jaxtl.methods.adapt.shallow.aligned import Aligned, Classifier, alignment, with_target_as_it_is
from jaxtl.methods.adapt.shallow.classifiers import nearest_neighbour
from jaxtl.plan import Method

STEPS_PER_CHECK = 10  # of Sinkhorn, between two looks at the marginals


def ot_map(
    classifier: Classifier | None = None,
    *,
    regularization: float = 0.02,
    class_weight: float = 0.1,
    rounds: int = 10,
) -> Method:
    """Source examples at the mean of the target examples that the plan sends them to.

    The cost is the squared distance, divided by its mean so that the parameters do not depend on
    the scale of the features. Sinkhorn iterations are all that is needed, hence no library of
    transport.

    Args:
        classifier: by default the nearest neighbour.
        regularization: of the entropy, relative to the mean cost.
        class_weight: the paper's eta, of the group term by which a target example receives from
            few classes; 0 leaves it out.
        rounds: of plans for the group term, each with the gradient at the plan before.

    Courty, Flamary, Tuia, Rakotomamonjy, "Optimal Transport for Domain Adaptation", TPAMI 2017.
    arXiv:1507.00504; the group term with p = 1/2 as in Courty, Flamary, Tuia, ECML 2014.
    """

    def align(source, labels, target, classify) -> Aligned:
        cost = scipy.spatial.distance.cdist(source, target, "sqeuclidean")
        cost = cost / max(cost.mean(), 1e-12)
        plan = sinkhorn_plan(cost, regularization)
        groups = labels[:, None] == labels
        for _ in range(rounds - 1 if class_weight else 0):
            # The derivative of sum over classes of (mass from the class)^(1/2), linearised.
            masses = np.float64(groups) @ plan * len(source)
            plan = sinkhorn_plan(cost + class_weight / (2 * np.sqrt(masses + 1e-3)), regularization)
        return with_target_as_it_is(plan @ target / plan.sum(1, keepdims=True))

    return alignment(align, classifier or nearest_neighbour())


def sinkhorn_plan(
    cost: np.ndarray, regularization: float, steps: int = 1000, tolerance: float = 1e-3
) -> np.ndarray:
    """The plan of least cost - regularization * entropy between uniform marginals.

    Args:
        cost: [n, m].
        regularization: > 0.
        steps: most iterations.
        tolerance: it ends when the row sums are off by less than this share; the column sums are
            exact.

    Returns:
        [n, m] >= 0, of sum 1.

    Raises:
        ValueError: regularization is not positive.

    Cuturi, "Sinkhorn Distances", NeurIPS 2013. arXiv:1306.0895. The scalings are absorbed into
    potentials every few steps, so that nothing underflows (Schmitzer, "Stabilized Sparse Scaling
    Algorithms for Entropy Regularized Transport Problems", 2019. arXiv:1610.06519, Alg. 2).
    """
    if regularization <= 0:
        raise ValueError(f"regularization must be positive; got {regularization}")
    (n, m), scaled = cost.shape, -cost / regularization
    logs = scaled - scaled.max(1, keepdims=True)
    logs -= logs.max(0)  # every row and column now holds a number that does not underflow
    for _ in range(0, steps, STEPS_PER_CHECK):
        kernel = np.exp(logs)
        right = np.ones(m)
        for _ in range(STEPS_PER_CHECK):
            left = 1 / n / np.maximum(kernel @ right, 1e-300)
            right = 1 / m / np.maximum(left @ kernel, 1e-300)
        off = np.abs(left * (kernel @ right) * n - 1).max()
        logs += np.log(left)[:, None] + np.log(right)
        if off < tolerance:
            break
    return np.exp(logs)
