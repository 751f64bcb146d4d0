"""Methods that tell the model about a domain, or take its style away, against NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtl.methods import generalize
from jaxtl.methods.generalize.sagnet import present_partners, random_contents, random_styles
from jaxtl.models import (
    Block,
    classes,
    context_model,
    context_network,
    from_blocks,
    mlp_head,
)
from jaxtl.models.context import InContext
from jaxtl.paths import flatten
from jaxtl.plan import StageShape, State
from jaxtl.plan.batch import make_batch

SGD, KEY, B, CLASSES, SIDE = optax.sgd(0.1), jax.random.key(4), 5, 3, 4
MODEL = from_blocks(
    [
        Block("conv", nn.Conv(2, (3, 3)), nn.tanh),
        Block("dense", nn.Conv(3, (SIDE, SIDE), padding="VALID")),
    ],
    {"task": classes(CLASSES)},
)
INPUTS = jax.ShapeDtypeStruct((1, SIDE, SIDE, 1), jnp.float32)


def shape(roles):
    return StageShape(roles, (9,) * len(roles), {"task": CLASSES}, B, inputs=INPUTS)


def draw(roles):
    rng = np.random.default_rng(0)
    size = (B, len(roles))
    weights = rng.uniform(0.5, 2, size).astype("f") * (np.array(roles) == "source")
    present = rng.uniform(0.5, 2, size).astype("f")
    present[1, 0] = weights[1, 0] = 0
    return make_batch(
        rng.normal(size=(*size, SIDE, SIDE, 1)).astype("f"),
        {"task": rng.integers(0, CLASSES, size)},
        {"task": weights},
        present=present,
        roles=roles,
    )


def begun(method, model, roles):
    """(params off zero, state)."""
    params, _ = model.init(KEY, jnp.zeros(INPUTS.shape))
    output, _ = model.apply(params, {}, jnp.zeros(INPUTS.shape))

    def after(block):
        return model.cut(block)[0].apply(params, {}, jnp.zeros(INPUTS.shape))[0]["features"]

    output = {**output, "inputs": jnp.zeros(INPUTS.shape), "after": after}
    params |= {n: m.init(KEY, output, shape(roles)) for n, m in method.modules.items()}
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape).astype("f"), params)
    memory = method.state(model, params, {}, shape(roles)) if method.state else None
    return params, State({}, memory)


def run(method, model, params, state, batch):
    batch = jax.tree.map(jnp.asarray, batch)

    def loss(params):
        return method.updates[0].loss(model, params, state, batch, KEY, 0)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


def applied(model, params, inputs):
    return jax.jit(lambda p, x: model.apply(p, {}, x)[0])(params, inputs)


def cross_entropy(logits, batch):
    log_p, total = np.float64(jax.nn.log_softmax(logits)), 0.0
    for i in range(B):
        for d in range(len(batch.roles)):
            total -= batch.weights["task"][i, d] * log_p[i, d, batch.labels["task"][i, d]] / B
    return total


def flat(batch):
    return batch.inputs.reshape(-1, SIDE, SIDE, 1)


def weighted_means(values, present):
    domains = range(values.shape[1])
    return np.stack([np.average(values[:, d], axis=0, weights=present[:, d]) for d in domains])


ROLES = {
    "sources": ("source", "source"),
    "with a target": ("source", "source", "target"),
}
CASES = [pytest.param(ROLES["sources"], marks=pytest.mark.slow), ROLES["with a target"]]


@pytest.mark.parametrize("roles", CASES, ids=ROLES)
def test_marginal_transfer_reads_the_mean_of_the_domain(roles):
    method, batch = generalize.marginal_transfer(SGD, decay=0.9), draw(roles)
    params, state = begun(method, MODEL, roles)
    output = applied(MODEL, params, flat(batch))
    features = np.asarray(output["features"]).reshape(B, len(roles), -1)
    logits = np.asarray(output["logits"]["task"]).reshape(B, len(roles), -1)
    means = weighted_means(features, batch.present)
    shift = means @ np.asarray(params["domain_embedding"]["task"])
    (loss, (after, _)), gradient = run(method, MODEL, params, state, batch)
    np.testing.assert_allclose(loss, cross_entropy(logits + shift, batch), rtol=1e-5)
    evaluated = means[2] if "target" in roles else means.mean(0)
    np.testing.assert_allclose(after.method["mean"], evaluated, rtol=1e-5)
    predicted = method.predict(MODEL, params, after, flat(batch))["logits"]["task"]
    own = np.asarray(output["logits"]["task"])
    expected = own + evaluated @ np.asarray(params["domain_embedding"]["task"])
    np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-5)
    nothing = batch.replace(present=0 * batch.present, weights={"task": 0 * batch.weights["task"]})
    (loss, (same, _)), gradient = run(method, MODEL, params, after, nothing)
    assert loss == 0 and all(not leaf.any() for leaf in flatten(gradient).values())
    jax.tree.map(np.testing.assert_array_equal, same.method, after.method)


@pytest.mark.slow
def test_the_average_forgets_its_start_and_then_the_past():
    roles, method = ("source", "source"), generalize.marginal_transfer(SGD, decay=0.75)
    params, state = begun(method, MODEL, roles)
    values = []
    for scale in (1.0, 2.0, -1.0):
        batch = draw(roles).replace(inputs=scale * draw(roles).inputs)
        output = applied(MODEL, params, flat(batch))["features"].reshape(B, 2, -1)
        values.append(weighted_means(np.asarray(output), batch.present).mean(0))
        (_, (state, _)), _ = run(method, MODEL, params, state, batch)
    weights = 0.75 ** np.arange(2, -1, -1)
    expected = np.average(values, axis=0, weights=weights)
    np.testing.assert_allclose(state.method["mean"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("roles", CASES, ids=ROLES)
def test_arm_reads_the_context_of_the_domain(roles):
    model = context_model(MODEL)
    method, batch = generalize.arm(SGD, network=context_network((2,))), draw(roles)
    params, state = begun(method, model, roles)
    assert params["backbone"]["conv"]["kernel"].shape == (3, 3, 2, 2)
    network = method.modules["context"]
    values = np.asarray(jax.jit(network.apply)(params["context"], flat(batch)))
    means = weighted_means(values.reshape(B, len(roles), SIDE, SIDE, 1), batch.present)
    beside = np.concatenate([batch.inputs, np.broadcast_to(means, batch.inputs.shape)], -1)
    plain = from_blocks(model.backbone, model.heads)
    rows = beside.reshape(-1, SIDE, SIDE, 2)
    logits = applied(plain, params, rows)["logits"]["task"].reshape(B, len(roles), -1)
    (loss, (after, _)), gradient = run(method, model, params, state, batch)
    np.testing.assert_allclose(loss, cross_entropy(logits, batch), rtol=1e-5)
    assert all(leaf.any() for leaf in flatten(gradient["context"]).values())
    evaluated = means[2] if "target" in roles else means.mean(0)
    np.testing.assert_allclose(after.method["mean"], evaluated, rtol=1e-4, atol=1e-6)
    context = np.broadcast_to(evaluated, flat(batch).shape)
    expected = applied(plain, params, np.concatenate([flat(batch), context], -1))
    predicted = method.predict(model, params, after, flat(batch))
    np.testing.assert_allclose(
        predicted["logits"]["task"], expected["logits"]["task"], rtol=1e-4, atol=1e-5
    )


def test_a_context_is_zero_where_none_is_told_and_vectors_have_one_too():
    model = context_model(MODEL, channels=2)
    inputs = jnp.ones((3, SIDE, SIDE, 1))
    zeros = InContext(inputs, jnp.zeros((3, SIDE, SIDE, 2)))
    np.testing.assert_array_equal(model.before(inputs), model.before(zeros))
    network = context_network((4,), channels=2)
    params = network.init(KEY, {"inputs": jnp.zeros((1, 7))}, shape(("source", "source")))
    assert network.apply(params, jnp.zeros((3, 7))).shape == (3, 2)


def test_what_does_not_fit_arm_is_refused():
    method = generalize.arm(SGD)
    with pytest.raises(ValueError, match=r"use models.context_model\(model\)"):
        begun(method, MODEL, ("source", "source"))
    with pytest.raises(ValueError, match=r"context_model\(model, channels=1\)"):
        begun(method, context_model(MODEL, channels=2), ("source", "source"))
    with pytest.raises(ValueError, match="two sources or more"):
        begun(method, context_model(MODEL), ("source", "target"))


def by_hand(maps):
    maps = np.float64(maps)
    mean = maps.mean((1, 2), keepdims=True)
    return mean, np.sqrt(maps.var((1, 2), keepdims=True) + 1e-6)


MAPS = np.random.default_rng(3).normal(size=(6, 3, 3, 2)).astype("f") + 2


def test_styles_and_contents_are_those_of_partners():
    weights = jnp.array([1.0, 1, 0, 1, 1, 1])
    partner = np.asarray(present_partners(KEY, weights))
    assert partner[np.arange(6) != 2].tolist() != np.arange(6)[np.arange(6) != 2].tolist()
    assert (partner == 2).sum() <= 1 and (2 not in partner or partner[2] == 2)
    mean, deviation = by_hand(MAPS)
    content = (MAPS - mean) / deviation
    share_key = jax.random.key(9)
    share = np.float64(jax.random.uniform(share_key, (6, 1, 1, 1)))
    expected = content * (share * deviation + (1 - share) * deviation[partner])
    expected += share * mean + (1 - share) * mean[partner]
    found = random_styles(share_key, KEY, MAPS, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    expected = content[partner] * deviation + mean
    np.testing.assert_allclose(random_contents(KEY, MAPS, weights), expected, rtol=1e-4, atol=1e-5)


def test_sagnet_gives_each_term_its_own_parameters():
    roles = ("source", "source")
    method, batch = generalize.sagnet(SGD, block="conv", weight=0.3), draw(roles)
    params, state = begun(method, MODEL, roles)
    first, rest = MODEL.cut("conv")
    keys = jax.random.split(jax.random.fold_in(KEY, 1), 3)
    weights = jnp.asarray(batch.present.reshape(-1))

    def terms(params):
        maps = first.apply(params, {}, flat(batch))[0]["features"]
        mixed = random_styles(keys[0], keys[2], maps, weights)
        logits = rest.apply(params, {}, mixed)[0]["logits"]["task"].reshape(B, 2, -1)
        styled = random_contents(keys[1], maps, weights).reshape(2 * B, -1)
        of_style = mlp_head((100,), CLASSES).apply(params["style"], styled)
        log_p = jax.nn.log_softmax(of_style)
        one_hot = jax.nn.one_hot(batch.labels["task"], CLASSES)
        task, style = (
            -jnp.sum(batch.weights["task"] * (one_hot * jax.nn.log_softmax(z)).sum(-1)) / B
            for z in (logits, of_style.reshape(B, 2, -1))
        )
        return jnp.stack([task, style, -(weights * log_p.mean(-1)).mean()])

    values, jacobian = jax.jit(lambda p: (terms(p), jax.jacrev(terms)(p)))(params)
    (loss, _), gradient = run(method, MODEL, params, state, batch)
    np.testing.assert_allclose(loss, values @ np.array([1, 1, 0.3]), rtol=1e-5)
    for path, leaf in flatten(gradient).items():
        rows = flatten(jacobian)[path]
        expected = rows[0] + 0.3 * rows[2] if path.startswith("backbone/conv") else rows[0]
        expected = rows[1] if path.startswith("style") else expected
        np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-6, err_msg=path)


def test_what_does_not_fit_sagnet_is_refused():
    with pytest.raises(ValueError, match="unknown block 'dens'"):
        begun(generalize.sagnet(SGD, block="dens"), MODEL, ("source", "source"))
    network = generalize.sagnet(SGD, block="first").modules["style"]
    with pytest.raises(ValueError, match=r"block 'first' puts out \[1, 3\]"):
        network.init(KEY, {"after": lambda block: jnp.zeros((1, 3))}, shape(("source", "source")))
