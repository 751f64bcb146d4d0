"""PADA, IWAN, VADA, OSBP and rejection: objectives, and the sign of what the features get."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shapes import SHAPE
from unlabelled_streams import (
    KEY,
    MODEL,
    SGD,
    B,
    C,
    assert_gradient,
    cross_entropy,
    draw,
    forward,
    host,
    log_softmax,
    softmax,
    start,
    task,
    value_and_gradient,
)

from jaxtl.losses import virtual_adversarial
from jaxtl.methods import adapt, transfer
from jaxtl.paths import flatten, nest, split
from jaxtl.plan import Columns, State

TRUTH = np.repeat([0, 1], B)


def with_modules(method, params):
    output, _ = MODEL.apply(params, {}, jnp.zeros((1, 4)))
    new = {name: host(module.init(KEY, output, SHAPE)) for name, module in method.modules.items()}
    return {**params, **new}


def discriminate(p, features):
    """Logits of the default discriminator in float64."""
    p = {path: np.asarray(leaf, np.float64) for path, leaf in flatten(p).items()}
    hidden = np.maximum(features @ p["dense_0/kernel"] + p["dense_0/bias"], 0)
    return hidden @ p["output/kernel"] + p["output/bias"]


def sides(params, batch):
    """Features of the sources, then of the targets."""
    return forward(params, batch.inputs.swapaxes(0, 1).reshape(-1, 4))


def opposed(gradient, value_of, params, module, coefficient):
    """Gradients of an adversarial term: its own for the module, opposed for the backbone.

    value_of: (params, how the term counts) -> value.
    """
    own, rest = split(gradient, lambda path: path.startswith(module))
    assert_gradient(own, lambda p: value_of({**params, **p}, 1.0), own_of(params, own), atol=2e-5)
    assert_gradient(
        rest, lambda p: value_of({**params, **p}, -coefficient), own_of(params, rest), atol=2e-5
    )


def own_of(params, like):
    flat = flatten(params)
    return nest({path: flat[path] for path in flatten(like)})


def test_pada_weighs_classes_by_what_the_target_seems_to_have():
    batch, method = draw(), adapt.pada(SGD, reversal=0.4, weight=0.7, temperature=0.5)
    params = with_modules(method, start()[0])
    columns = [
        Columns(
            batch.inputs[:, d],
            {"c": batch.labels["c"][:, d]},
            {"c": np.zeros(B, "f")},
            np.ones(B, "f"),
            batch.roles[d],
        )
        for d in range(2)
    ]
    state = State({}, method.state(MODEL, params, {}, SHAPE))
    assert np.all(state.method["c"] == 1)
    _, state = method.prepare(MODEL, host(params), state, columns)
    mean = softmax(forward(params, batch.inputs[:, 1])[1] / 0.5).mean(0)
    np.testing.assert_allclose(state.method["c"], mean / mean.max(), rtol=1e-5)
    of_class = mean / mean.max()
    factors = of_class[batch.labels["c"][:, 0]]

    def value_of(params, count):
        features, logits = sides(params, batch)
        losses = batch.weights["c"][:, 0] * cross_entropy(logits[:B], batch.labels["c"][:, 0])
        domain = cross_entropy(discriminate(params["discriminator"], features), TRUTH)
        adversary = (np.concatenate([factors, np.ones(B)]) * domain).mean()
        return (factors * losses).sum() / B + count * 0.7 * adversary

    value, _, _, gradient = value_and_gradient(method, params, state, batch)
    np.testing.assert_allclose(value, value_of(params, 1.0), rtol=1e-5)
    opposed(gradient, value_of, params, "discriminator", 0.4)


def test_iwan_weighs_sources_by_a_discriminator_that_the_features_do_not_feel():
    batch, method = draw(), adapt.iwan(SGD, reversal=0.4, weight=0.7, entropy_weight=0.2)
    params = with_modules(method, start()[0])
    first = sides(params, batch)[0]
    likeness = softmax(discriminate(params["estimator"], first[:B]))[:, 1]
    weights = np.concatenate([likeness / likeness.mean(), np.ones(B)])
    assert likeness.std() > 0.01

    def value_of(now, count):
        features, logits = sides(now, batch)
        domain = cross_entropy(discriminate(now["discriminator"], features), TRUTH)
        estimated = cross_entropy(discriminate(now["estimator"], first), TRUTH).mean()
        unsure = -(softmax(logits[B:]) * log_softmax(logits[B:])).sum(-1).mean()
        return (task(now, batch) + estimated + count * 0.7 * (weights * domain).mean()
                + 0.2 * unsure)  # fmt: skip

    value, _, metrics, gradient = value_and_gradient(method, params, State({}), batch)
    np.testing.assert_allclose(value, value_of(params, 1.0), rtol=1e-5)
    opposed(gradient, value_of, params, "discriminator", 0.4)
    assert {"estimator_loss", "target_entropy", "domain_loss", "task_loss"} <= metrics.keys()


def test_vada_adds_entropy_and_smoothness_to_an_adversary():
    batch = draw()
    method = adapt.vada(
        SGD, reversal=0.4, domain_weight=0.7, source_weight=0.5, target_weight=0.3, radius=0.6
    )
    plain = adapt.dann(SGD, reversal=0.4, weight=0.7)
    params = with_modules(method, start()[0])

    def more(params):
        def predict(x):
            return MODEL.apply(params, {}, x)[0]["logits"]["c"]

        keys = jax.random.split(jax.random.fold_in(KEY, 1))
        smooth = [
            virtual_adversarial(predict, keys[d], x, predict(x), radius=0.6)
            for d, x in enumerate(batch.inputs.swapaxes(0, 1))
        ]
        log_p = jax.nn.log_softmax(predict(batch.inputs[:, 1]))
        unsure = -jnp.sum(jnp.exp(log_p) * log_p, -1).mean()
        return 0.5 * smooth[0] + 0.3 * (smooth[1] + unsure)

    value, _, metrics, gradient = value_and_gradient(method, params, State({}), batch)
    base, _, _, base_gradient = value_and_gradient(plain, params, State({}), batch)
    added, slope = jax.value_and_grad(more)(params)
    np.testing.assert_allclose(value, base + added, rtol=1e-5)
    assert metrics["source_smoothness"] > 1e-3 and metrics["target_smoothness"] > 1e-3
    for path, leaf in flatten(gradient).items():
        expected = flatten(base_gradient)[path] + flatten(slope)[path]
        np.testing.assert_allclose(leaf, expected, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_osbp_pulls_the_head_to_the_threshold_and_pushes_the_features_away(threshold):
    batch = draw()
    batch.labels["c"] = np.minimum(batch.labels["c"], C - 2)  # the last class is unknown
    method = adapt.osbp(SGD, reversal=0.4, weight=0.7, threshold=threshold)
    params = start()[0]

    def value_of(params, count):
        p = softmax(forward(params, batch.inputs[:, 1])[1])[:, -1]
        term = -(threshold * np.log(p) + (1 - threshold) * np.log(1 - p)).mean()
        return task(params, batch) + count * 0.7 * term

    value, _, metrics, gradient = value_and_gradient(method, params, State({}), batch)
    np.testing.assert_allclose(value, value_of(params, 1.0), rtol=1e-5)
    opposed(gradient, value_of, params, "heads", 0.4)
    guessed = forward(params, batch.inputs[:, 1])[1].argmax(-1) == C - 1
    np.testing.assert_allclose(metrics["unknown_share"], guessed.mean(), rtol=1e-6)


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.2])
def test_thresholds_are_probabilities(bad):
    with pytest.raises(ValueError, match="probability between 0 and 1"):
        adapt.osbp(SGD, threshold=bad)
    with pytest.raises(ValueError, match="probability between 0 and 1"):
        adapt.reject_unsure(transfer.full(SGD), head="c", threshold=bad)


def test_rejection_calls_exactly_the_unsure_unknown():
    params, inputs = start()[0], np.random.default_rng(0).normal(size=(200, 4)).astype("f")
    method = adapt.reject_unsure(transfer.full(SGD), head="c", threshold=0.7)
    predicted = method.predict(MODEL, params, State({}), inputs)["logits"]["c"].argmax(-1)
    known = softmax(forward(params, inputs)[1][:, :-1])
    expected = np.where(known.max(-1) < 0.7, C - 1, known.argmax(-1))
    np.testing.assert_array_equal(predicted, expected)
    assert len(set(expected)) == 3
