"""Classifiers of aligned domains: linear ones that become the head, and what keeps examples."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.methods.adapt.shallow.aligned import Aligned, Classifier, Sample
from jaxtl.methods.transfer.closed_form import PENALTIES
from jaxtl.methods.transfer.linear_fit import Fit, logistic_fit, ridge_fit, stratified_folds
from jaxtl.plan import Head, Model, Params, PyTree, StageShape, State, Statistics


def nearest_neighbour(*, cosine: bool = False, capacity: int = 4096) -> Classifier:
    """The class of the nearest source example; the logits are minus squared distances.

    Examples have no weights, so that domains with `example_weights` are refused. They are kept in
    the method's state; the model's own head is not used.

    Args:
        cosine: distances between examples scaled to length 1.
        capacity: largest number of source examples; the state has this size.

    Raises:
        ValueError: when it runs, there are more examples.
    """

    def scaled(z):
        if not cosine:
            return z
        module = jnp if isinstance(z, jax.Array) else np
        return z / module.maximum(module.sqrt((z**2).sum(-1, keepdims=True)), 1e-12)

    def predict(sample: Sample) -> np.ndarray:
        source, target = scaled(sample.source), scaled(sample.target)
        return sample.labels[((source**2).sum(1) - 2 * target @ source.T).argmin(1)]

    def deploy(aligned: Aligned, sample: Sample, params: Params, state: State):
        labels = padded(np.int32(sample.labels), capacity, -1)
        memory = keep_examples(aligned, scaled(sample.source), capacity) | {"labels": labels}
        return params, state._replace(method=memory)

    def blank(head: Head) -> dict[str, jax.Array]:
        return {"labels": jnp.full(capacity, -1, jnp.int32)}

    def scores(memory: PyTree, z: jax.Array, classes: int) -> jax.Array:
        z = scaled(z)
        squares = (z**2).sum(1)[:, None] + (memory["examples"] ** 2).sum(1)[None]
        distances = squares - 2 * z @ memory["examples"].T
        labels = jnp.where(memory["labels"] < 0, classes, memory["labels"])  # padding is dropped
        nearest = jax.ops.segment_min(distances.T, labels, classes).T
        # A class without examples is far from everything, at a finite distance.
        return -jnp.minimum(nearest, 1e9)

    return Classifier(predict, deploy, comparing_with_examples(scores, blank, capacity))


def comparing_with_examples(
    scores: Callable[[PyTree, jax.Array, int], jax.Array],
    blank: Callable[[Head], dict[str, jax.Array]],
    capacity: int,
) -> Callable[[int | None], dict]:
    """`Classifier.attributes` of one that compares inputs with examples in the method's state.

    Args:
        scores: (state, aligned features [n, width], classes) -> logits [n, classes].
        blank: what the state holds before `prepare`, besides that of `keep_examples`.
        capacity: largest number of examples.
    """

    def attributes(width: int | None) -> dict:
        def start(model: Model, params: Params, statistics: Statistics, shape: StageShape):
            if len(model.heads) != 1:
                raise ValueError(f"the model must have one head; it has {', '.join(model.heads)}")
            ((name, head),) = model.heads.items()
            features = params["heads"][name]["kernel"].shape[0]
            size = features if width is None else width
            return {
                "projection": jnp.zeros((features, size)),
                "offset": jnp.zeros(size),
                "examples": jnp.zeros((capacity, size)),
                **blank(head),
            }

        def predict(model: Model, params: Params, state: State, inputs: PyTree) -> dict:
            memory, ((name, head),) = state.method, model.heads.items()
            output, _ = model.apply(params, state.statistics, inputs)
            features = output["features"].reshape(len(output["features"]), -1)
            z = features @ memory["projection"] + memory["offset"][None]
            return {**output, "logits": {name: scores(memory, z, head.size)}}

        return {"state": start, "predict": predict, "fresh_frozen": True, "unweighted": True}

    return attributes


def keep_examples(aligned: Aligned, examples: np.ndarray, capacity: int) -> dict[str, np.ndarray]:
    """The state of `comparing_with_examples`: the target's map and examples [n, width].

    Raises:
        ValueError: there are more examples than the capacity.
    """
    return {
        "projection": np.float32(aligned.projection),
        "offset": np.float32(aligned.offset),
        "examples": padded(np.float32(examples), capacity),
    }


def padded(rows: np.ndarray, capacity: int, value: float = 0) -> np.ndarray:
    """Rows [n, ...] filled up to [capacity, ...].

    Raises:
        ValueError: there are more rows.
    """
    if len(rows) > capacity:
        raise ValueError(
            f"{len(rows)} examples are to be kept, but capacity is {capacity}; raise it"
        )
    missing = [(0, capacity - len(rows)), *[(0, 0)] * (rows.ndim - 1)]
    return np.pad(rows, missing, constant_values=value)


def linear_ridge(penalties: Sequence[float] = PENALTIES) -> Classifier:
    """Ridge regression of one-hot labels, as `transfer.ridge`; it becomes the model's head.

    Args:
        penalties: candidates >= 0, compared by the error on source examples left out, one at a
            time.
    """

    def fit(z, labels, weights, classes: int) -> Fit:
        return ridge_fit(z, np.eye(classes)[labels], penalties, weights)

    return _linear(fit)


def linear_logistic(penalties: Sequence[float] = (1.0,), folds: int = 5) -> Classifier:
    """Multinomial logistic regression, as `transfer.logistic`; it becomes the model's head.

    Args:
        penalties: candidates > 0, compared by the cross-entropy on source examples left out.
        folds: number of cross-validation folds.
    """

    def fit(z, labels, weights, classes: int) -> Fit:
        assigned = stratified_folds(labels, folds)
        return logistic_fit(z, labels, classes, penalties, weights, assigned)

    return _linear(fit)


def linear_svm(penalties: Sequence[float] = (1e2, 1e3, 1e4), folds: int = 3) -> Classifier:
    """Linear support vector machines, one class against the others; they become the model's head.

    scikit-learn's `LinearSVC(C=1 / penalty)`, with its squared hinge loss. Their scores are no
    probabilities.

    Args:
        penalties: candidates > 0, compared by the accuracy on source examples left out; ties go
            to the largest.
        folds: number of cross-validation folds, stratified by class.

    Fan, Chang, Hsieh, Wang, Lin, "LIBLINEAR", JMLR 2008.
    """

    def fit(z, labels, weights, classes: int) -> Fit:
        best, errors = max(penalties), np.zeros(len(penalties))
        if len(penalties) > 1:
            assigned = stratified_folds(labels, folds)
            for fold in range(folds):
                held, rest = assigned == fold, assigned != fold
                for i, penalty in enumerate(penalties):
                    solved = svm_fit(z[rest], labels[rest], weights[rest], classes, penalty)
                    wrong = (z[held] @ solved.kernel + solved.bias).argmax(1) != labels[held]
                    errors[i] += weights[held] @ wrong / weights.sum()
            best = min(zip(errors, [-p for p in penalties], strict=True))[1] * -1
        return svm_fit(z, labels, weights, classes, best)

    return _linear(fit)


def svm_fit(
    z: np.ndarray, labels: np.ndarray, weights: np.ndarray, classes: int, penalty: float
) -> Fit:
    """`LinearSVC` as a linear map [width, classes]; a class without examples scores the lowest."""
    from sklearn.svm import LinearSVC

    model = LinearSVC(C=1 / penalty, dual=len(z) <= z.shape[1], random_state=0, max_iter=10_000)
    model.fit(z, labels, weights)
    rows = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # one row, of the second class
        rows = [np.concatenate([-part, part]) for part in rows]
    kernel, bias = np.zeros((z.shape[1], classes)), np.full(classes, rows[1].min() - 20)
    kernel[:, model.classes_], bias[model.classes_] = rows[0].T, rows[1]
    return Fit(kernel, bias, penalty, np.full(1, np.nan))


def _linear(fit: Callable[..., Fit]) -> Classifier:
    def solve(sample: Sample) -> Fit:
        return fit(sample.source, sample.labels, sample.weights, sample.classes)

    def predict(sample: Sample) -> np.ndarray:
        solved = solve(sample)
        return (sample.target @ solved.kernel + solved.bias).argmax(1)

    def deploy(aligned: Aligned, sample: Sample, params: Params, state: State):
        solved = solve(sample)
        head = {
            "kernel": np.float32(aligned.projection @ solved.kernel),
            "bias": np.float32(aligned.offset @ solved.kernel + solved.bias),
        }
        return {**params, "heads": {**params["heads"], sample.head: head}}, state

    return Classifier(predict, deploy, lambda width: {"solves": ("heads/.*",)})
