"""Classifiers of aligned domains: the nearest neighbour, and linear ones that become the head."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.methods.adapt.shallow.aligned import Aligned, Classifier
from jaxtl.methods.transfer.closed_form import PENALTIES
from jaxtl.methods.transfer.linear_fit import Fit, logistic_fit, ridge_fit, stratified_folds
from jaxtl.plan import Model, Params, PyTree, StageShape, State, Statistics


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

    def predict(aligned: Aligned, labels, weights, classes: int, target: np.ndarray):
        del weights, classes
        source, target = (scaled(side) for side in (aligned.source, target))
        return labels[((source**2).sum(1) - 2 * target @ source.T).argmin(1)]

    def scaled(z):
        if not cosine:
            return z
        module = jnp if isinstance(z, jax.Array) else np
        return z / module.maximum(module.sqrt((z**2).sum(-1, keepdims=True)), 1e-12)

    def deploy(aligned: Aligned, labels, weights, classes, head, params: Params, state: State):
        del weights, classes, head
        kept = {
            "projection": np.float32(aligned.projection),
            "offset": np.float32(aligned.offset),
            "examples": padded(np.float32(scaled(aligned.source)), capacity),
            "labels": padded(np.int32(labels), capacity, -1),
        }
        return params, state._replace(method=kept)

    def attributes(width: int | None) -> dict:
        def initial(
            model: Model, params: Params, statistics: Statistics, shape: StageShape
        ) -> PyTree:
            del statistics
            features = _features(model, params)
            size = features if width is None else width
            return {
                "projection": jnp.zeros((features, size)),
                "offset": jnp.zeros(size),
                "examples": jnp.zeros((capacity, size)),
                "labels": jnp.full(capacity, -1, jnp.int32),
            }

        def outcome(model: Model, params: Params, state: State, inputs: PyTree) -> dict:
            kept, (head,) = state.method, model.heads
            output, _ = model.apply(params, state.statistics, inputs)
            features = output["features"].reshape(len(output["features"]), -1)
            z = scaled(features @ kept["projection"] + kept["offset"][None])
            squares = (z**2).sum(1)[:, None] + (kept["examples"] ** 2).sum(1)[None]
            gaps = squares - 2 * z @ kept["examples"].T
            size = model.heads[head].size
            classes = jnp.where(kept["labels"] < 0, size, kept["labels"])  # padding is dropped
            nearest = jax.ops.segment_min(gaps.T, classes, size).T
            # A class without examples is far from everything, at a finite distance.
            return {**output, "logits": {head: -jnp.minimum(nearest, 1e9)}}

        attributes = {"fresh_frozen": True, "unweighted": True}
        return {"state": initial, "predict": outcome, **attributes}

    return Classifier(predict, deploy, attributes)


def padded(rows: np.ndarray, capacity: int, value: float = 0) -> np.ndarray:
    """Rows [n, ...] filled up to [capacity, ...].

    Raises:
        ValueError: there are more rows.
    """
    if len(rows) > capacity:
        raise ValueError(
            f"{len(rows)} examples are to be kept, but capacity is {capacity}; raise it"
        )
    return np.pad(
        rows, [(0, capacity - len(rows)), *[(0, 0)] * (rows.ndim - 1)], constant_values=value
    )


def _features(model: Model, params: Params) -> int:
    if len(model.heads) != 1:
        raise ValueError(f"the model must have one head; it has {', '.join(model.heads)}")
    return params["heads"][next(iter(model.heads))]["kernel"].shape[0]


def linear_ridge(penalties: Sequence[float] = PENALTIES, folds: int | None = None) -> Classifier:
    """Ridge regression of one-hot labels, as `transfer.ridge`; it becomes the model's head.

    Args:
        penalties: candidates >= 0, compared by the error on source examples left out.
        folds: number of cross-validation folds; None leaves out one example at a time.
    """

    def fit(z, labels, weights, classes: int) -> Fit:
        assigned = None if folds is None else stratified_folds(labels, folds)
        return ridge_fit(z, np.eye(classes)[labels], penalties, weights, None, assigned)

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

    def one(z, labels, weights, classes: int, penalty: float) -> Fit:
        from sklearn.svm import LinearSVC

        model = LinearSVC(C=1 / penalty, dual=len(z) <= z.shape[1], random_state=0, max_iter=10_000)
        model.fit(z, labels, weights)
        rows = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # one row, of the second class
            rows = [np.concatenate([-part, part]) for part in rows]
        kernel, bias = np.zeros((z.shape[1], classes)), np.full(classes, rows[1].min() - 20)
        kernel[:, model.classes_], bias[model.classes_] = rows[0].T, rows[1]
        return Fit(kernel, bias, penalty, np.full(1, np.nan))

    def fit(z, labels, weights, classes: int) -> Fit:
        best, errors = max(penalties), np.zeros(len(penalties))
        if len(penalties) > 1:
            assigned = stratified_folds(labels, folds)
            for fold in range(folds):
                held, rest = assigned == fold, assigned != fold
                for i, penalty in enumerate(penalties):
                    found = one(z[rest], labels[rest], weights[rest], classes, penalty)
                    wrong = (z[held] @ found.kernel + found.bias).argmax(1) != labels[held]
                    errors[i] += weights[held] @ wrong / weights.sum()
            best = min(zip(errors, [-p for p in penalties], strict=True))[1] * -1
        return one(z, labels, weights, classes, best)._replace(errors=errors)

    return _linear(fit)


def _linear(fit: Callable[..., Fit]) -> Classifier:
    def predict(aligned: Aligned, labels, weights, classes: int, target: np.ndarray):
        solved = fit(aligned.source, labels, weights, classes)
        return (target @ solved.kernel + solved.bias).argmax(1)

    def deploy(aligned: Aligned, labels, weights, classes, head, params: Params, state: State):
        solved = fit(aligned.source, labels, weights, classes)
        new = {
            "kernel": np.float32(aligned.projection @ solved.kernel),
            "bias": np.float32(aligned.offset @ solved.kernel + solved.bias),
        }
        return {**params, "heads": {**params["heads"], head: new}}, state

    return Classifier(predict, deploy, lambda width: {"solves": ("heads/.*",)})
