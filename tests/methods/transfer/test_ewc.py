"""EWC against double loops over examples and labels, explicit sums, and an exact joint solution."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shapes import SHAPE

from jaxtl import models
from jaxtl.losses import supervised
from jaxtl.methods import transfer
from jaxtl.methods.transfer.ewc import penalty
from jaxtl.models import binary, classes, regression
from jaxtl.paths import flatten
from jaxtl.plan import Columns, State
from jaxtl.plan.batch import make_batch

RNG = np.random.default_rng(0)
ALL, SGD = lambda path: True, optax.sgd(0.1)


def network(**heads):
    model = models.mlp(heads, hidden=(4,))
    params, statistics = jax.jit(model.init)(jax.random.key(1), jnp.zeros((1, 5)))
    return model, params, State(statistics)


DIGITS = network(digit=classes(3))  # one model, so that its programs are compiled once


def moved(params, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.float32(x + 0.5 * rng.normal(size=x.shape)), params)


def columns(n=7, seed=0, weight=0.0, **labels):
    rng = np.random.default_rng(seed)
    labels = labels or {"digit": rng.integers(0, 3, n).astype(np.int32)}
    weights = {head: np.full(n, weight, np.float32) for head in labels}
    return Columns(rng.normal(size=(n, 5)).astype(np.float32), labels, weights, np.ones(n))


@jax.jit
@jax.value_and_grad
def log_likelihood(params, x, label):
    return jax.nn.log_softmax(DIGITS[0].apply(params, {}, x[None])[0]["logits"]["digit"][0])[label]


def squared_scores(params, x, label):
    """p(label | x) and (d log p / d parameter)^2 of one example."""
    value, grads = log_likelihood(params, x, label)
    return float(np.exp(value)), {path: np.square(g) for path, g in flatten(grads).items()}


def assert_close(found, expected, **tolerance):
    found, expected = flatten(found), flatten(expected)
    assert found.keys() == expected.keys()
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, expected[path], err_msg=path, **tolerance)


def brute_force(params, data):
    total = {path: np.zeros(leaf.shape) for path, leaf in flatten(params).items()}
    for x in data.inputs:
        for label in range(3):
            p, squares = squared_scores(params, x, label)
            total = {path: total[path] + p * squares[path] / len(data.inputs) for path in total}
    return total


@pytest.mark.parametrize("block", [256, 3])
def test_exact_fisher_is_a_double_loop_over_examples_and_classes(block, monkeypatch):
    monkeypatch.setattr("jaxtl.methods.transfer.fisher.BLOCK", block)
    model, params, state = DIGITS
    data = columns()
    found = transfer.exact_fisher(model, params, state, data, ALL)
    assert_close(found, brute_force(params, data), rtol=2e-4, atol=1e-7)


def test_empirical_fisher_reads_the_labels_that_are_there():
    model, params, state = DIGITS
    labels = np.array([2, -1, 0, 1, -1, 1], np.int32)
    data = columns(6, digit=labels)
    found = transfer.empirical_fisher(model, params, state, data, ALL)
    rows = [i for i in range(6) if labels[i] >= 0]
    parts = [squared_scores(params, data.inputs[i], labels[i]) for i in rows]
    expected = {path: np.mean([s[path] for _, s in parts], 0) for path in flatten(params)}
    assert_close(found, expected, rtol=2e-4, atol=1e-7)


def test_only_the_chosen_parameters_are_measured():
    model, params, state = DIGITS
    found = transfer.exact_fisher(
        model, params, state, columns(), lambda path: path.startswith("heads")
    )
    expected = brute_force(params, columns())
    assert flatten(found).keys() == {"heads/digit/kernel", "heads/digit/bias"}
    assert_close(found, {p: expected[p] for p in flatten(found)}, rtol=2e-4, atol=1e-7)


@pytest.mark.slow
def test_numbers_have_the_curvature_of_their_loss():
    model, params, state = network(y=regression(2), tags=binary(3))
    data = columns(4, y=np.full((4, 2), np.nan, np.float32), tags=np.zeros((4, 3), np.float32))
    found = transfer.exact_fisher(model, params, state, data, ALL)

    def outputs(params):
        logits = model.apply(params, state.statistics, data.inputs)[0]["logits"]
        return logits["y"], logits["tags"]

    jacobians = [flatten(jac) for jac in jax.jit(jax.jacrev(outputs))(params)]
    p = jax.nn.sigmoid(outputs(params)[1])
    expected = {}
    for path in flatten(params):
        wide = (slice(None), slice(None)) + (None,) * flatten(params)[path].ndim
        gauss = (jacobians[0][path] ** 2).sum(1).mean(0)  # mean of two squares: curvature 2 / 2
        coins = ((p * (1 - p) / 3)[wide] * jacobians[1][path] ** 2).sum(1).mean(0)
        expected[path] = gauss + coins
    assert_close(found, expected, rtol=2e-4, atol=1e-7)


def chain(method, tasks):
    """(model, state of the method after `prepare` for each task, its Fishers, where it ended)."""
    model, params, state = DIGITS
    state = state._replace(method=method.state(model, params, {}, SHAPE))
    fishers, ends = [], []
    for task in range(tasks):
        params = moved(params, task)
        former = columns(seed=task)
        fishers.append(flatten(transfer.exact_fisher(model, params, state, former, ALL)))
        ends.append(flatten(params))
        params, state = method.prepare(model, params, state, [columns()], former=former)
    return model, moved(params, 99), state, fishers, ends


@pytest.mark.parametrize("tasks", [1, 2, 4])
def test_remembered_penalty_is_the_sum_over_former_tasks(tasks):
    _, params, state, fishers, ends = chain(transfer.ewc(SGD, strength=1.0), tasks)

    def explicit(params):
        now = flatten(params)
        return sum(
            jnp.sum(fisher[path] * (now[path] - end[path]) ** 2)
            for fisher, end in zip(fishers, ends, strict=True)
            for path in now
        )

    value, grads = jax.jit(jax.value_and_grad(penalty, 1))(state.method, params)
    expected, expected_grads = jax.jit(jax.value_and_grad(explicit))(params)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    assert_close(grads, expected_grads, rtol=2e-3, atol=1e-5)
    assert value > 0.1


def test_online_penalty_decays_and_stays_about_the_last_task():
    _, params, state, fishers, ends = chain(transfer.online_ewc(SGD, strength=1.0, gamma=0.5), 3)
    now = flatten(params)
    expected = 0.0
    for path, end in ends[2].items():
        precision = 0.25 * fishers[0][path] + 0.5 * fishers[1][path] + fishers[2][path]
        expected += np.sum(precision * (now[path] - end) ** 2)
    np.testing.assert_allclose(penalty(state.method, params), expected, rtol=1e-4)


def batch_of(*parts):
    """Domains side by side: (inputs [n, 5], labels [n], weight)."""
    return make_batch(
        jnp.stack([x for x, _, _ in parts], 1),
        {"digit": jnp.stack([y for _, y, _ in parts], 1)},
        {"digit": jnp.stack([jnp.full(len(x), w) for x, _, w in parts], 1)},
    )


def test_loss_adds_the_penalty():
    method = transfer.ewc(SGD, strength=3.0)
    model, params, state, _, _ = chain(method, 2)
    own = columns(6, seed=5)
    first = (own.inputs, own.labels["digit"], 1.0)
    (update,) = method.updates
    loss, (_, metrics) = update.loss(model, params, state, batch_of(first), None, 0)
    logits = model.apply(params, state.statistics, own.inputs)[0]["logits"]["digit"][:, None]
    plain, _ = supervised(model.heads, {"digit": logits}, batch_of(first))
    half = 0.5 * penalty(state.method, params)
    np.testing.assert_allclose(loss, plain + 3.0 * half, rtol=1e-6)
    np.testing.assert_allclose(metrics["penalty"], half)


def test_nothing_pulls_at_the_start_of_the_second_task():
    method = transfer.ewc(SGD, strength=1.0)
    model, params, state = DIGITS
    state = state._replace(method=method.state(model, params, {}, SHAPE))
    _, state = method.prepare(model, params, state, [columns()], former=columns())
    value, grads = jax.jit(jax.value_and_grad(penalty, 1))(state.method, params)
    assert value == 0 and all(not leaf.any() for leaf in flatten(grads).values())


def test_a_gaussian_linear_model_gets_the_joint_solution():
    """Orthogonal inputs of task 1 make its Fisher diagonal: EWC then forgets nothing at all."""
    model = models.linear({"digit": regression()})
    n = 16
    basis, _ = np.linalg.qr(np.column_stack([np.ones(n), RNG.normal(size=(n, 3))]))
    first = basis[:, 1:] * [1.0, 2.0, 3.0]
    second = RNG.normal(size=(n, 3))
    goals = RNG.normal(size=(2, n))

    def solve(x, y):
        solution = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]
        head = {"kernel": solution[:3, None], "bias": solution[3:]}
        return jax.tree.map(np.float32, {"heads": {"digit": head}})

    alone, own = solve(first, goals[0]), solve(second, goals[1])
    joint = solve(np.concatenate([first, second]), goals.ravel())
    method = transfer.ewc(SGD, strength=1.0)
    former = Columns(
        np.float32(first), {"digit": np.float32(goals[0])}, {"digit": np.zeros(n)}, np.ones(n)
    )
    state = State({}, method.state(model, alone, {}, SHAPE))
    _, state = method.prepare(model, alone, state, [former], former=former)
    part = (np.float32(second), np.float32(goals[1]), 1.0)
    batch = batch_of(part)

    def loss(params):
        return method.updates[0].loss(model, params, state, batch, None, 0)[0]

    slope = lambda params: float(optax.tree.norm(jax.jit(jax.grad(loss))(params)))  # noqa: E731
    assert slope(joint) < 1e-5
    assert min(slope(alone), slope(own)) > 0.1
