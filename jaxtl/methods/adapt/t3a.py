"""T3A: a head whose rows are means of the target's own features."""

import numpy as np

from jaxtl.models import outputs, read_by
from jaxtl.plan import Columns, Method, Model, Params, State


def t3a(*, keep: int | None = 20) -> Method:
    """Replaces the head: row k becomes the mean of unit features that are surely of class k.

    A stage without steps, over unlabelled domains. The candidates of class k are its old row and
    the features that the old head assigns to it, all scaled to length 1; those of least entropy
    under the old head are kept. The bias becomes 0.

    The paper goes through a stream and predicts each batch with the means so far. Here the rows are
    those after all the data of the stage. As in its Eq. 5 the mean is not scaled to length 1; it is
    in public code.

    Args:
        keep: candidates of a class that are kept, the paper's M (1, 5, 20, 50 or 100 there); None
            for all.

    Raises:
        ValueError: keep is not positive; when it runs, a head has no classes.

    Iwasawa & Matsuo, "Test-Time Classifier Adjustment Module for Model-Agnostic Domain
    Generalization", NeurIPS 2021, Eq. 4 to 6.
    """
    if keep is not None and keep < 1:
        raise ValueError(f"t3a keeps {keep} examples of a class; at least 1 is needed.")

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        parts = [outputs(model, params, state, rows.inputs, "features") for rows in domains]
        features = np.concatenate([part.reshape(len(part), -1) for part in parts])
        heads = dict(params["heads"])
        for name in domains[0].labels:
            if not model.heads[name].integer:
                raise ValueError(f"t3a averages the features of classes, head {name!r} has none.")
            read = read_by(model, name, features)
            kernel = class_rows(read, heads[name]["kernel"], heads[name]["bias"], keep)
            heads[name] = {"kernel": kernel, "bias": np.zeros_like(heads[name]["bias"])}
        return {**params, "heads": heads}, state

    return Method(prepare=prepare, solves=("heads/.*",), unweighted=True)


def class_rows(
    features: np.ndarray, kernel: np.ndarray, bias: np.ndarray, keep: int | None
) -> np.ndarray:
    """The new kernel [features, classes], of the old one's dtype.

    Args:
        features: [n, features].
        kernel, bias: of the old head.
        keep: candidates of a class that are kept.
    """
    candidates = np.concatenate([kernel.T, features]).astype(np.float64)
    logits = candidates @ kernel + bias
    log_p = logits - logits.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    entropies = -(np.exp(log_p) * log_p).sum(1)
    classes = np.concatenate([np.arange(kernel.shape[1]), log_p[kernel.shape[1] :].argmax(1)])
    lengths = np.linalg.norm(candidates, axis=1, keepdims=True)
    candidates /= np.where(lengths > 0, lengths, 1)
    rows = []
    for k in range(kernel.shape[1]):
        of_class = np.flatnonzero(classes == k)
        surest = of_class[np.argsort(entropies[of_class], kind="stable")[:keep]]
        rows.append(candidates[surest].mean(0))
    return np.stack(rows, 1).astype(kernel.dtype)
