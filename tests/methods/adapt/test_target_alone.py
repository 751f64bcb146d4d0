"""Stages on the target alone: TENT, T3A, DIRT-T and new batch statistics."""

import jax
import numpy as np
import pytest
from shapes import SHAPE
from unlabelled_streams import (
    KEY,
    MODEL,
    SGD,
    C,
    assert_gradient,
    domains_of,
    draw,
    forward,
    host,
    log_softmax,
    normed,
    pretrained,
    softmax,
    start,
    trained,
    value_and_gradient,
)

from jaxtl.losses import virtual_adversarial
from jaxtl.methods import adapt, transfer
from jaxtl.paths import flatten, label
from jaxtl.plan import Columns, State


def entropy(logits):
    return -(softmax(logits) * log_softmax(logits)).sum(-1).mean()


def test_tent_minimises_the_entropy_over_norms_alone():
    (params, _), batch = start(), draw(domains=2, unknown=2)
    method = adapt.tent(SGD)

    def value_of(params):
        return entropy(forward(params, batch.inputs)[1])

    value, _, _, gradient = value_and_gradient(method, params, State({}), batch)
    np.testing.assert_allclose(value, value_of(params), rtol=1e-5)
    assert_gradient(gradient, value_of, params)
    ((patterns, _),) = method.optimizers.values()
    labels = label(flatten(start(normed())[0]), {"all": patterns})
    assert {path for path, group in labels.items() if group == "all"} == {
        "backbone/body/norm/scale",
        "backbone/body/norm/bias",
    }


def test_tent_changes_norms_and_statistics_and_nothing_else(tmp_path):
    begun = pretrained(tmp_path / "source", normed(), steps=5)
    run = trained(adapt.tent(SGD), tmp_path / "tent", begun, source=False)
    before, after = (
        flatten(p) | flatten(s.statistics) for p, s in (begun[1], (run.params, run.state))
    )
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert moved == {f"backbone/body/norm/{leaf}" for leaf in ("scale", "bias", "mean", "var")}


def looped_rows(features, kernel, bias, keep):
    """One candidate after the other."""
    support = {k: [(entropy(kernel[:, k] @ kernel + bias), kernel[:, k])] for k in range(C)}
    for z in features:
        logits = z @ kernel + bias
        support[int(logits.argmax())].append((entropy(logits), z))
    rows = []
    for found in support.values():
        best = sorted(found, key=lambda pair: pair[0])[:keep]
        rows.append(np.mean([z / np.linalg.norm(z) for _, z in best], axis=0))
    return np.stack(rows, 1)


@pytest.mark.parametrize("keep", [1, 3, None])
def test_rows_of_t3a_are_means_of_sure_features(keep):
    params, state = start(seed=2)
    params = host(params)
    inputs = [np.random.default_rng(d).normal(size=(25, 4)).astype("f") for d in range(2)]
    columns = [
        Columns(x, {"c": np.full(25, -1)}, {"c": np.zeros(25, "f")}, np.ones(25, "f"))
        for x in inputs
    ]
    method = adapt.t3a(keep=keep)
    new, _ = method.prepare(MODEL, params, state, columns)
    features = forward(params, np.concatenate(inputs))[0]
    head = {name: leaf.astype(np.float64) for name, leaf in params["heads"]["c"].items()}
    expected = looped_rows(features, head["kernel"], head["bias"], keep)
    np.testing.assert_allclose(new["heads"]["c"]["kernel"], expected, atol=1e-5)
    assert not new["heads"]["c"]["bias"].any()
    assert new["backbone"] is params["backbone"]


def test_t3a_needs_something_to_keep():
    with pytest.raises(ValueError, match="at least 1"):
        adapt.t3a(keep=0)


def test_dirt_t_stays_near_its_teacher():
    (params, _), (old, _), batch = start(), start(seed=5), draw(domains=1)
    method = adapt.dirt_t(SGD, target_weight=0.3, teacher_weight=2.0, radius=0.7, every=5)
    state, flat = State({}, method.state(MODEL, old, {}, SHAPE)), batch.inputs[:, 0]
    teacher = forward(old, flat)[1]

    def smoothness(params):
        def predict(x):
            return MODEL.apply(params, {}, x)[0]["logits"]["c"]

        key = jax.random.fold_in(KEY, 1)
        return virtual_adversarial(predict, key, flat, predict(flat), radius=0.7)

    def rest(params):
        logits = forward(params, flat)[1]
        gap = (softmax(teacher) * (log_softmax(teacher) - log_softmax(logits))).sum(-1).mean()
        return 0.3 * entropy(logits) + 2.0 * gap

    value, new, metrics, gradient = value_and_gradient(method, params, state, batch, step=3)
    smooth, slope = jax.value_and_grad(smoothness)(params)
    np.testing.assert_allclose(value, rest(params) + 0.3 * smooth, rtol=1e-4)
    assert metrics["smoothness"] > 1e-3 and metrics["divergence"] > 1e-2
    without = jax.tree.map(lambda one, other: one - 0.3 * other, gradient, slope)
    assert_gradient(without, rest, params, atol=1e-4)
    assert new.method["params"]["heads"]["c"]["bias"].tolist() == list(old["heads"]["c"]["bias"])
    _, new, metrics, _ = value_and_gradient(method, params, state, batch, step=5)
    np.testing.assert_allclose(metrics["divergence"], 0, atol=1e-6)
    kept = flatten(new.method["params"])
    for path, leaf in flatten(params).items():
        np.testing.assert_array_equal(kept[path], leaf, err_msg=path)
    with pytest.raises(ValueError, match="at least 1"):
        adapt.dirt_t(SGD, every=0)


def test_adaptive_batch_normalisation_is_a_stage_of_new_statistics(tmp_path):
    """AdaBN (Li et al., 2016) needs no method of its own: refresh them on the target."""
    begun = pretrained(tmp_path / "source", normed(), steps=5)
    run = trained(transfer.refresh_statistics(256), tmp_path / "bn", begun, source=False)
    inputs = domains_of()[1].dataset.table().inputs
    dense = host(jax.tree.map(lambda leaf: leaf[0], run.params["backbone"]["body"]["dense"]))
    before = inputs @ dense["kernel"] + dense["bias"]
    statistics = run.state.statistics["backbone"]["body"]["norm"]
    np.testing.assert_allclose(statistics["mean"][0], before.mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(statistics["var"][0], before.var(0), rtol=1e-3)
    for path, leaf in flatten(run.params).items():
        np.testing.assert_array_equal(leaf, flatten(begun[1][0])[path], err_msg=path)
