"""Penalties and mixed inputs against NumPy, on a network of two dense layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shapes import SHAPE
from two_layers import (
    KEY,
    MODEL,
    SGD,
    B,
    D,
    columns,
    differs_as,
    draw,
    forward,
    host,
    initial,
    log_softmax,
    moved,
    numbers,
    objective,
    value_and_gradient,
)

from jaxtl.methods import transfer
from jaxtl.methods.transfer.channel_attention import channel_attention
from jaxtl.methods.transfer.mixup import mix_pairs
from jaxtl.models import Block, classes, from_blocks
from jaxtl.paths import flatten
from jaxtl.plan import State


def test_l2_sp_is_the_distance_from_the_start_and_the_size_of_the_rest():
    method = transfer.l2_sp(SGD, anchor_penalty=0.7, head_penalty=0.3)
    start, batch = initial(), draw()
    params = moved(start)
    state = State({}, method.state(MODEL, start, {}, SHAPE))
    value, new, metrics, gradient = value_and_gradient(method, params, state, batch)
    now, then = numbers(params), numbers(start)
    backbone = sum(np.sum((now[p] - then[p]) ** 2) for p in now if p.startswith("backbone/"))
    head = sum(np.sum(now[p] ** 2) for p in now if p.startswith("heads/target/"))
    expected = objective(params, batch) + 0.35 * backbone + 0.15 * head
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["anchor_penalty"], 0.35 * backbone, rtol=1e-5)
    plain = value_and_gradient(transfer.full(SGD), params, State({}), batch)[3]
    for path, slope in numbers(gradient).items():
        pull = 0.7 * (now[path] - then[path])
        if path.startswith("heads/"):  # no domain names the source's head
            pull = 0.3 * now[path] if "target" in path else 0.0
        np.testing.assert_allclose(slope, numbers(plain)[path] + pull, rtol=1e-4, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, new.method, state.method)
    at_start = value_and_gradient(method, start, state, batch)[2]
    assert at_start["anchor_penalty"] == 0


def test_anchors_are_what_trains_and_is_named():
    groups = {"frozen": (("backbone/first/.*",), SGD), "all": ((".*",), SGD)}
    kept = transfer.l2_sp(groups, anchors=(".*/kernel",)).state(MODEL, initial(), {}, SHAPE)
    assert set(flatten(kept)) == {
        f"{place}/kernel" for place in ("backbone/second", "heads/source", "heads/target")
    }
    with pytest.raises(ValueError, match="matched no parameter"):
        transfer.l2_sp(SGD, anchors=("bakbone/.*",)).state(MODEL, initial(), {}, SHAPE)


def test_bss_adds_the_smallest_squared_singular_values():
    params, batch = initial(), draw()
    method = transfer.bss(SGD, penalty=2.0, count=2)
    value, _, _, gradient = value_and_gradient(method, params, State({}), batch)

    def expected(params):
        features = forward(params, batch.inputs)[0]["second"].reshape(-1, 5)
        values = np.linalg.svd(features, compute_uv=False)
        return objective(params, batch) + 2 * np.sum(values[-2:] ** 2)

    np.testing.assert_allclose(value, expected(params), rtol=1e-5)
    differs_as(gradient, expected, params, "backbone/first/kernel")


def test_co_tuning_relates_classes_and_adds_their_cross_entropy():
    method = transfer.co_tuning(SGD, source="source", target="target", temperature=2.0)
    params, batch, domains = initial(), draw(), [columns(), columns(1, 7)]
    state = State({}, host(method.state(MODEL, params, {}, SHAPE)))
    kept, state = method.prepare(MODEL, host(params), state, domains)
    jax.tree.map(np.testing.assert_array_equal, kept, params)
    relation = np.zeros((3, 4))
    for label in range(3):
        total = 0.0
        for domain in domains:
            logits = forward(params, domain.inputs)[1]["source"] / 2.0
            for i in np.flatnonzero(domain.labels["target"] == label):
                relation[label] += domain.weights["target"][i] * np.exp(log_softmax(logits[i]))
                total += domain.weights["target"][i]
        relation[label] /= total
    np.testing.assert_allclose(state.method, relation, rtol=1e-4)
    assert np.abs(relation - relation.mean(0)).max() > 0.01

    labels, weights = batch.labels["target"], batch.weights["target"]

    def expected(params):
        said = log_softmax(forward(params, batch.inputs)[1]["source"])
        related = -np.sum(weights * np.sum(relation[np.maximum(labels, 0)] * said, -1)) / B
        return objective(params, batch) + 2.3 * related

    state = jax.tree.map(jnp.float32, state)
    value, _, _, gradient = value_and_gradient(method, params, state, batch)
    np.testing.assert_allclose(value, expected(params), rtol=1e-5)
    differs_as(gradient, expected, params, "backbone/first/kernel")
    differs_as(gradient, expected, params, "heads/source/kernel")


def test_co_tuning_says_what_is_missing():
    state = transfer.co_tuning(SGD, source="sourc", target="target").state
    with pytest.raises(ValueError, match=r"unknown head 'sourc'. Did you mean 'source'\?"):
        state(MODEL, initial(), {}, SHAPE)
    method = transfer.co_tuning(SGD, source="source", target="target")
    hidden = columns()._replace(weights={"target": np.zeros(20)})
    with pytest.raises(ValueError, match="no domain of the stage has labels of head 'target'"):
        method.prepare(MODEL, host(initial()), State({}, np.zeros((3, 4))), [hidden])


def test_attention_is_the_softmax_of_the_rise_of_the_loss_without_a_channel():
    params, domains = host(initial()), [columns(), columns(1, 45)]
    solved, _ = transfer.logistic(heads=["heads/target/.*"]).prepare(
        MODEL, params, State({}), domains
    )
    found = channel_attention(MODEL, params, State({}), domains, {"first": 5, "second": 5}, 99, 0.1)
    for block, rest in {"first": "second", "second": None}.items():
        rises = np.zeros(5)
        for domain in domains:
            hidden = forward(solved, domain.inputs)[0][block]
            for i in np.flatnonzero(domain.weights["target"]):
                losses = []
                for off in (None, *range(5)):
                    x = np.where(np.arange(5) == off, 0, hidden[i])
                    p = numbers(solved)
                    if rest:
                        x = np.tanh(x @ p[f"backbone/{rest}/kernel"] + p[f"backbone/{rest}/bias"])
                    logits = x @ p["heads/target/kernel"] + p["heads/target/bias"]
                    losses.append(-log_softmax(logits)[domain.labels["target"][i]])
                rises += domain.weights["target"][i] * (np.array(losses[1:]) - losses[0])
        rises /= sum(np.count_nonzero(domain.weights["target"]) for domain in domains)
        expected = np.exp(log_softmax(rises / 0.1))
        np.testing.assert_allclose(found[block], expected, rtol=1e-3)
        assert np.ptp(found[block]) > 0.05
    few = channel_attention(MODEL, params, State({}), domains, {"first": 5}, 5, 0.1)
    assert not np.allclose(few["first"], found["first"], rtol=1e-2)


def test_attention_is_compiled_once_for_all_seeds():
    traces = []

    class Traced(nn.Dense):
        def __call__(self, inputs):
            traces.append(inputs.shape)
            return super().__call__(inputs)

    model = from_blocks([Block("first", Traced(5))], {"target": classes(3)})
    counts = []
    for seed in range(2):
        params, _ = model.init(jax.random.key(seed), columns().inputs)
        traces.clear()
        channel_attention(model, host(params), State({}), [columns()], {"first": 5}, 99, 0.1)
        counts.append(len(traces))
    assert counts[0] > 0 == counts[1]


def test_delta_is_the_attended_distance_from_the_features_of_the_start():
    method = transfer.delta(SGD, blocks={"first": 5, "second": 5}, feature_penalty=3.0)
    start, batch = initial(), draw()
    state = State({}, host(method.state(MODEL, start, {}, SHAPE)))
    _, state = method.prepare(MODEL, host(start), state, [columns()])
    attention = state.method["attention"]
    params = moved(start)

    def expected(params):
        now, then = (forward(p, batch.inputs)[0] for p in (params, start))
        distance = sum(
            5 * np.sum(attention[b] * (now[b] - then[b]) ** 2) / B for b in ("first", "second")
        )
        p = numbers(params)
        head = sum(np.sum(p[f"heads/target/{leaf}"] ** 2) for leaf in ("kernel", "bias"))
        return objective(params, batch) + 1.5 * distance + 0.005 * head

    value, new, _, gradient = value_and_gradient(method, params, state, batch)
    np.testing.assert_allclose(value, expected(params), rtol=1e-5)
    for path in ("backbone/first/kernel", "backbone/second/bias", "heads/target/kernel"):
        differs_as(gradient, expected, params, path)
    assert value_and_gradient(method, start, state, batch)[2]["feature_penalty"] == 0
    jax.tree.map(np.testing.assert_array_equal, new.method, state.method)


def test_delta_says_which_blocks_and_channels_there_are():
    with pytest.raises(ValueError, match=r"unknown block 'secnd'. Did you mean 'second'\?"):
        transfer.delta(SGD, blocks={"secnd": 5}).state(MODEL, initial(), {}, SHAPE)
    method = transfer.delta(SGD, blocks={"second": 4}, examples=3)
    state = State({}, host(method.state(MODEL, initial(), {}, SHAPE)))
    with pytest.raises(ValueError, match=r"have \{'second': 5\} channels, not \{'second': 4\}"):
        method.prepare(MODEL, host(initial()), state, [columns()])
    hidden = columns()._replace(weights={"target": np.zeros(20)})
    with pytest.raises(ValueError, match="needs labels"):
        method.prepare(MODEL, host(initial()), state, [hidden])


def test_mixup_mixes_pairs_of_a_domain_and_both_losses():
    params, batch = initial(), draw()
    method = transfer.mixup(SGD, alpha=1.0)
    inputs, own, partner = jax.jit(mix_pairs)(jax.random.split(KEY)[0], batch, 1.0)
    value, _, _, gradient = value_and_gradient(method, params, State({}), batch)
    labels, weights = batch.labels["target"], batch.weights["target"]
    inputs = np.asarray(inputs)
    share = np.asarray(own.weights["target"] / np.where(weights > 0, weights, 1)).max(0)
    assert 0 < share[0] < 1 and share[0] != share[1]
    order = np.empty((B, D), int)
    for d in range(D):
        for i in range(B):
            mixtures = share[d] * batch.inputs[i, d] + (1 - share[d]) * batch.inputs[:, d]
            (order[i, d],) = np.flatnonzero(np.abs(mixtures - inputs[i, d]).max(1) < 1e-5)
        assert sorted(order[:, d]) == list(range(B))
    assert (order[:, 0] != order[:, 1]).any()
    np.testing.assert_array_equal(partner.labels["target"][:, 1], labels[order[:, 1], 1])

    def expected(params):
        total = 0.0
        log_p = log_softmax(forward(params, inputs)[1]["target"])
        for d in range(D):
            for i, j in enumerate(order[:, d]):
                for k, part in ((i, share[d]), (j, 1 - share[d])):
                    if weights[k, d] > 0:
                        total -= part * weights[k, d] * log_p[i, d, labels[k, d]] / B
        return total

    np.testing.assert_allclose(value, expected(params), rtol=1e-5)
    differs_as(gradient, expected, params, "backbone/first/kernel")


def test_mixup_of_token_ids():
    batch = draw().replace(inputs=np.zeros((B, D, 4), np.int32))
    with pytest.raises(ValueError, match="inputs that are floats, got int32"):
        mix_pairs(KEY, batch, 0.2)


def test_layerwise_steps_shrink_towards_the_input():
    params, batch = initial(), draw()
    gradient = value_and_gradient(transfer.full(SGD), params, State({}), batch)[3]
    tx, scaled = (
        f(optax.adamw(0.1, weight_decay=0.5))
        for f in (lambda tx: tx, lambda tx: transfer.layerwise(MODEL, tx, 0.5))
    )
    full, _ = tx.update(gradient, tx.init(params), params)
    less, _ = scaled.update(gradient, scaled.init(params), params)
    factors = {"backbone/first": 0.25, "backbone/second": 0.5, "heads/target": 1.0}
    for path, leaf in flatten(less).items():
        factor = factors.get(path.rsplit("/", 1)[0], 1.0)
        np.testing.assert_allclose(leaf, factor * flatten(full)[path], rtol=1e-6)


@pytest.mark.parametrize(
    "method",
    [
        transfer.mixup(SGD),
        transfer.bi_tuning(SGD, head="target", projection=2, queue=2),
        transfer.co_tuning(SGD, source="source", target="target"),
    ],
    ids=["mixup", "bi_tuning", "co_tuning"],
)
def test_hidden_labels_never_reach_a_loss(method):
    batch = draw()
    labels = np.where(batch.weights["target"] > 0, batch.labels["target"], 2)
    assert (labels != batch.labels["target"]).any()
    params = initial(modules=method.modules)
    state = State({}, method.state(MODEL, params, {}, SHAPE) if method.state else None)
    state = jax.tree.map(lambda leaf: leaf + jnp.asarray(1, leaf.dtype), state)

    one = value_and_gradient(method, params, state, batch)
    two = value_and_gradient(method, params, state, batch.replace(labels={"target": labels}))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert np.isfinite(one[0])
