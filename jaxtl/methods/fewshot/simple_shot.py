"""SimpleShot: the nearest class mean of centred features of length 1."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.features import backbone_features
from jaxtl.form import checked
from jaxtl.methods.fewshot.reading import (
    among_present,
    both_features,
    check_classes,
    class_means,
    mean_row,
    squared_euclidean,
    unit,
)
from jaxtl.plan import Columns, Learner, Method, Model, Params, State


@checked
def simple_shot(
    *,
    centre: Literal["source", "support", "none"] = "support",
    normalise: bool = True,
    transductive: bool = False,
) -> Learner:
    """Logits -|g(x) - mean of g over class k|^2, g(x) = (f(x) - m) / |f(x) - m|.

    The paper's three are "none" without normalisation (UN), "none" (L2N) and "source" (CL2N). With
    "source" m is what a stage with `feature_mean` computed; "support" needs no such stage.

    Args:
        centre: what m is the mean of; "none" for 0. With one shot the mean of the support is that
            of few examples indeed.
        normalise: divide by the length; the means of the classes are not normalised again.

    Wang et al., "SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning",
    2019. arXiv:1911.04623, Section 3.
    """

    def predict(model, params, state, support, queries, *, ways, rng, train):
        check_classes(model, "simple_shot")
        of_support, of_queries, statistics = both_features(
            model, params, state, support, queries, rng=rng, live=train or transductive
        )
        if centre == "support":
            middle = mean_row(of_support, support.weights)
        else:
            middle = _source_mean(state) if centre == "source" else 0
        of_support, of_queries = of_support - middle, of_queries - middle
        if normalise:
            of_support, of_queries = unit(of_support), unit(of_queries)
        logits = squared_euclidean(of_queries, class_means(of_support, support, ways))
        return among_present(logits, support, ways), statistics

    return Learner("SimpleShot", predict, transductive=transductive, changes=())


def feature_mean() -> Method:
    """A stage without steps that keeps the mean feature of its sources for `simple_shot`.

    Its domains are those whose examples are averaged, each example by its weight. The arm is read
    with `simple_shot(centre="source")`.
    """

    def start(model, params, statistics, shape):
        name = next(iter(shape.classes))
        return {"feature_mean": jnp.zeros(params["heads"][name]["kernel"].shape[0])}

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        total, weight = 0.0, 0.0
        for rows in domains:
            features = backbone_features(model, params, state, rows.inputs)
            features = features.reshape(len(features), -1).astype(np.float64)
            total, weight = total + rows.present @ features, weight + rows.present.sum()
        mean = np.asarray(total / weight, np.float32)
        return params, state._replace(method={"feature_mean": mean})

    return Method(state=start, prepare=prepare, learner=simple_shot(centre="source"))


def _source_mean(state: State) -> jax.Array:
    if not (isinstance(state.method, dict) and "feature_mean" in state.method):
        raise ValueError(
            'simple_shot(centre="source") needs the mean feature of the source: end the arm with a '
            "stage of 0 steps whose method is fewshot.feature_mean(), or centre by the support"
        )
    return state.method["feature_mean"][None]
