"""Any method as a baseline for open sets: what it is not sure of is unknown."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxtl.plan import Method, Model, Params, PyTree, State


def reject_unsure(method: Method, *, head: str, threshold: float = 0.5) -> Method:
    """The method, whose predictions of a head are "unknown" where they are not confident.

    The head's last class is "unknown". Its logit becomes larger than all others exactly where the
    largest probability among the others is below the threshold.

    Args:
        method: any.
        head: of at least two known classes and a last one.
        threshold: in (0, 1).

    Raises:
        ValueError: the threshold is outside (0, 1).

    Hendrycks & Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in
    Neural Networks", ICLR 2017. arXiv:1610.02136.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"the threshold is a probability between 0 and 1, got {threshold}.")

    def predict(model: Model, params: Params, state: State, inputs: PyTree):
        if method.predict is None:
            output, _ = model.apply(params, state.statistics, inputs)
        else:
            output = method.predict(model, params, state, inputs)
        known = output["logits"][head][..., :-1]
        confidence = jax.nn.softmax(known).max(-1, keepdims=True)
        unknown = known.max(-1, keepdims=True) + threshold - confidence
        logits = output["logits"] | {head: jnp.concatenate([known, unknown], -1)}
        return {**output, "logits": logits}

    return dataclasses.replace(method, predict=predict)
