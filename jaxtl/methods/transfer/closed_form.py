"""Linear heads solved on the host in float64: feature transfer and parameter transfer.

`prepare` computes the model's features once and solves the head on them; there is no gradient
step. The features are the backbone's (feature transfer, `g_wt(h_w(x))`), or the inputs themselves
where the model is linear (parameter transfer). Every example counts by its weight: of several
domains the larger counts more, unlike in mini-batches, which take as many examples from each.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from jaxtl import paths
from jaxtl.features import backbone_features
from jaxtl.methods.transfer.linear_fit import Fit, logistic_fit, ridge_fit, stratified_folds
from jaxtl.models import read_by
from jaxtl.plan import Columns, Method, Model, Params, State

logger = logging.getLogger(__name__)

PENALTIES = tuple(float(penalty) for penalty in np.logspace(-3, 5, 17))


def ridge(
    penalties: Sequence[float] = PENALTIES,
    *,
    heads: Sequence[str] = ("heads/.*",),
    towards_source: bool = False,
) -> Method:
    """Ridge regression of the labels on the features.

    Minimises sum_i w_i |y_i - x_i W - b|^2 + penalty * |W - W_0|^2, a sum and not a mean, as
    scikit-learn's `Ridge(alpha=penalty)`; b is not penalised. The targets of a head of classes are
    one-hot: its logits are scores of which the largest wins, so that its cross-entropy is not a
    likelihood.

    Args:
        penalties: candidates >= 0; several are compared by the squared error on examples left out,
            one at a time.
        heads: path patterns of the heads to solve; those without labels stay as they are.
        towards_source: W_0 is the kernel that the stage starts from, the source's solution, which
            shrinkage returns to (biased ridge, hypothesis transfer); otherwise 0.

    Raises:
        ValueError: the penalties are not valid.
    """
    _check(penalties, ">= 0")

    def fit(features, labels, weights, head, kernel):
        targets = np.eye(head.size)[labels] if head.integer else labels.reshape(len(labels), -1)
        prior = kernel if towards_source else None
        return ridge_fit(features, targets, penalties, weights, prior)

    return _solve_heads("ridge", fit, heads)


def logistic(
    penalties: Sequence[float] = (1.0,), *, heads: Sequence[str] = ("heads/.*",), folds: int = 5
) -> Method:
    """Multinomial logistic regression of the classes on the features.

    Minimises sum_i w_i cross_entropy_i + penalty / 2 * |W|^2, scikit-learn's
    `LogisticRegression(C=1 / penalty)`; the bias is not penalised.

    Args:
        penalties: candidates > 0; several are compared by the cross-entropy on examples left out.
        heads: path patterns of the heads to solve; those without labels stay as they are.
        folds: number of cross-validation folds, stratified by class.

    Raises:
        ValueError: the penalties or folds are not valid; when it runs, a head has no classes.
    """
    _check(penalties, "> 0")
    if folds < 2:
        raise ValueError(f"folds must be at least 2; got {folds}.")

    def fit(features, labels, weights, head, kernel):
        if not head.integer:
            raise ValueError("logistic regression needs class labels; use ridge for numbers.")
        assigned = stratified_folds(labels, folds)
        return logistic_fit(features, labels, head.size, penalties, weights, assigned)

    return _solve_heads("logistic regression", fit, heads)


def _check(penalties: Sequence[float], bound: str) -> None:
    allowed = {">= 0": np.greater_equal, "> 0": np.greater}[bound]
    if not (len(penalties) and np.isfinite(penalties).all() and allowed(penalties, 0).all()):
        raise ValueError(f"penalties must be finite, at least one, {bound}; got {list(penalties)}.")


def _solve_heads(what: str, fit: Callable[..., Fit], patterns: Sequence[str]) -> Method:
    """A method that replaces kernel and bias of heads.

    Args:
        what: its name, for the log.
        fit: (features [n, features], labels [n, ...], weights [n], Head, kernel) -> Fit.
        patterns: paths of the heads.
    """

    def prepare(
        model: Model, params: Params, state: State, domains: list[Columns]
    ) -> tuple[Params, State]:
        flat = paths.flatten(params)
        names = _whole_heads(model, patterns, flat)
        features = cache(lambda i: backbone_features(model, params, state, domains[i].inputs))
        labelled = {name: rows for name in names if (rows := _labelled_rows(name, domains))}
        if not labelled:
            raise ValueError(f"no domain has labels for the heads to solve: {', '.join(names)}.")
        for name, rows in labelled.items():
            head, kernel = model.heads[name], flat[f"heads/{name}/kernel"]
            parts = [
                (
                    read_by(model, name, features(i))[mask],
                    domains[i].labels[name][mask],
                    domains[i].weights[name][mask],
                )
                for i, mask in rows.items()
            ]
            x, labels, weights = map(np.concatenate, zip(*parts, strict=True))
            weights = weights.reshape(len(weights), -1).mean(1)
            if not np.isfinite(x).all():
                raise ValueError(f"the features that head {name!r} is solved on are not finite.")
            solved = fit(x, labels, weights, head, kernel)
            flat[f"heads/{name}/kernel"] = solved.kernel.astype(kernel.dtype)
            flat[f"heads/{name}/bias"] = solved.bias.astype(kernel.dtype)
            message = "%s: head %s solved on %d examples with penalty %g (left-out error %.4g)."
            logger.info(message, what, name, len(x), solved.penalty, solved.errors.min())
        return paths.nest(flat), state

    return Method(prepare=prepare, solves=tuple(patterns))


def _labelled_rows(head: str, domains: list[Columns]) -> dict[int, np.ndarray]:
    """{domain: its examples [n] bool whose label of the head counts, all of it}, if there are any.

    How many are left out because a part of their label is missing is logged.
    """
    rows = {}
    for i, domain in enumerate(domains):
        if head not in domain.labels:
            continue
        counts = (domain.weights[head] > 0).reshape(len(domain.weights[head]), -1)
        if partial := int((counts.any(1) & ~counts.all(1)).sum()):
            logger.warning("head %s: %d examples with a part of their label only", head, partial)
        if counts.all(1).any():
            rows[i] = counts.all(1)
    return rows


def _whole_heads(model: Model, patterns: Sequence[str], flat: dict[str, np.ndarray]) -> list[str]:
    chosen = paths.select(patterns, flat)
    names = [name for name in model.heads if f"heads/{name}/kernel" in chosen]
    whole = {f"heads/{name}/{leaf}" for name in names for leaf in ("kernel", "bias")}
    if chosen != whole:
        raise ValueError(
            f"a closed form solves whole heads, kernel and bias; {', '.join(patterns)} differs "
            f"from that in {', '.join(sorted(chosen ^ whole))}."
        )
    return names
