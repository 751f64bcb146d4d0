"""TrAdaBoost: boosting that trusts the few labelled target examples more than the source."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.methods.adapt.shallow.aligned import read_sample
from jaxtl.methods.transfer.linear_fit import logistic_fit
from jaxtl.plan import Columns, Method, Model, Params, PyTree, StageShape, State, Statistics


def tradaboost(*, rounds: int = 10, penalty: float = 1.0) -> Method:
    """Logistic regressions of reweighted source and labelled target examples, which then vote.

    The targets must hold some labels: source, labelled target and, if there is one, unlabelled
    target are three domains. The logits are the weighted votes of the later half of the rounds;
    the paper's vote between two classes is extended to several by the sum for each class.

    Args:
        rounds: number of regressions, at least 2.
        penalty: of `logistic_fit`, with weights of mean 1.

    Raises:
        ValueError: rounds is less than 2; when it runs, no target example has a label.

    Dai, Yang, Xue, Yu, "Boosting for Transfer Learning", ICML 2007, Fig. 1.
    """
    if rounds < 2:
        raise ValueError(f"rounds must be at least 2; got {rounds}")

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        sample = read_sample(model, params, state, domains)
        labelled = sample.target_labels >= 0
        if not labelled.any():
            raise ValueError("tradaboost needs a target with some labels")
        x = np.concatenate([sample.source, sample.target[labelled]])
        labels = np.concatenate([sample.labels, sample.target_labels[labelled]])
        n_source = len(sample.source)
        weights = np.concatenate([sample.weights, sample.target_weights[labelled]])
        kernels, biases, votes = [], [], []
        for _ in range(rounds):
            shares = weights * len(x) / weights.sum()
            solved = logistic_fit(x, labels, sample.classes, (penalty,), shares)
            wrong = (x @ solved.kernel + solved.bias).argmax(1) != labels
            weights, vote = reweight(weights, wrong, n_source, rounds)
            kernels.append(solved.kernel)
            biases.append(solved.bias)
            votes.append(vote)
        votes[: rounds // 2] = [0.0] * (rounds // 2)
        committee = {"kernels": kernels, "biases": biases, "votes": votes}
        committee = {name: np.float32(values) for name, values in committee.items()}
        return params, state._replace(method=committee)

    def initial(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        ((name, head),) = model.heads.items()
        shape = (rounds, params["heads"][name]["kernel"].shape[0], head.size)
        return {
            "kernels": jnp.zeros(shape),
            "biases": jnp.zeros((rounds, head.size)),
            "votes": jnp.zeros(rounds),
        }

    def predict(model: Model, params: Params, state: State, inputs: PyTree) -> dict:
        committee, ((name, head),) = state.method, model.heads.items()
        output, _ = model.apply(params, state.statistics, inputs)
        features = output["features"].reshape(len(output["features"]), -1)
        scores = jnp.einsum("nf,rfc->rnc", features, committee["kernels"])
        scores += committee["biases"][:, None]
        chosen = jax.nn.one_hot(scores.argmax(-1), head.size)
        return {**output, "logits": {name: jnp.einsum("r,rnc->nc", committee["votes"], chosen)}}

    return Method(prepare=prepare, state=initial, predict=predict, aligns=True, fresh_frozen=True)


def reweight(
    weights: np.ndarray, wrong: np.ndarray, n_source: int, rounds: int
) -> tuple[np.ndarray, float]:
    """Weights after a round, and the logarithm of 1 / beta_t, its vote.

    A source example that was wrong counts less, by beta = 1 / (1 + sqrt(2 ln n_source / rounds));
    a target example that was wrong counts more, by 1 / beta_t with beta_t = error / (1 - error).

    Args:
        weights: [n] > 0, source examples first.
        wrong: [n] bool.
        n_source: number of source examples.
        rounds: of the boosting.

    The error on the target is kept within [1e-3, 0.49], so that a round without errors has a
    finite vote and one worse than chance a small one.
    """
    target = weights[n_source:]
    error = np.clip(target @ wrong[n_source:] / target.sum(), 1e-3, 0.49)
    shrink = 1 / (1 + np.sqrt(2 * np.log(n_source) / rounds))
    factor = error / (1 - error)
    powers = np.where(np.arange(len(weights)) < n_source, shrink, 1 / factor)
    return weights * powers**wrong, float(-np.log(factor))
