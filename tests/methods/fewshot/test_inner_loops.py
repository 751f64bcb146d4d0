"""Inner loops and their meta-gradients, in float64, against NumPy and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from finite_differences import central_difference
from scipy.special import softmax
from small_tasks import (
    KEY,
    MODEL,
    NUMBERS,
    PLAIN,
    WAYS,
    answers,
    batch_of,
    episode,
    flat,
    parameters,
    query_loss,
)

from jaxtl.methods import fewshot
from jaxtl.plan import State

RATE = 0.3
SGD = optax.sgd(RATE)
MODELS = {"classes": (MODEL, 0), "one number": (PLAIN, 1), "numbers": (NUMBERS, 2)}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def gradients(learner, params, *episode, **options):
    """(loss, its gradient), as in training."""

    def loss(params):
        return query_loss(learner, params, *episode, train=True, **options)

    return jax.jit(loss), jax.jit(jax.grad(loss))(params)


def backward(params, inputs, labels):
    """(loss, gradient) of the mean cross-entropy in NumPy, {path: array}."""
    p = {path: np.asarray(leaf) for path, leaf in flat(params).items()}
    h1 = np.tanh(inputs @ p["backbone/first/kernel"] + p["backbone/first/bias"])
    h2 = np.tanh(h1 @ p["backbone/second/kernel"] + p["backbone/second/bias"])
    probabilities = softmax(h2 @ p["heads/task/kernel"] + p["heads/task/bias"], 1)
    loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    d3 = (probabilities - np.eye(WAYS)[labels]) / len(labels)
    d2 = d3 @ p["heads/task/kernel"].T * (1 - h2**2)
    d1 = d2 @ p["backbone/second/kernel"].T * (1 - h1**2)
    slopes = {}
    layers = ("backbone/first", inputs, d1), ("backbone/second", h1, d2), ("heads/task", h2, d3)
    for name, x, d in layers:
        slopes |= {f"{name}/kernel": x.T @ d, f"{name}/bias": d.sum(0)}
    return loss, slopes


def stepped(params, slopes, adapted=""):
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            np.asarray(leaf) - RATE * slopes[name]
            if (name := jax.tree_util.keystr(path, simple=True, separator="/")).startswith(adapted)
            else leaf
        ),
        params,
    )


@pytest.mark.parametrize(
    "adapted", ["", "heads/", pytest.param("backbone/", marks=pytest.mark.slow)]
)
def test_two_steps_by_hand(adapted):
    params, (support, queries) = parameters(), episode()
    learner = fewshot.maml(SGD, num_steps=2, patterns=(f"{adapted}.*",))
    fast = params
    for _ in range(2):
        fast = stepped(fast, backward(fast, support.inputs, support.labels)[1], adapted)
    value, slopes = backward(fast, queries.inputs, queries.labels)
    actual = query_loss(learner, params, support, queries, train=True)
    np.testing.assert_allclose(actual, value, rtol=1e-10)
    if not adapted:  # the gradient of first order is that at the adapted parameters
        first = fewshot.maml(SGD, num_steps=2, first_order=True)
        _, gradient = gradients(first, params, support, queries)
        for path, leaf in flat(gradient).items():
            np.testing.assert_allclose(leaf, slopes[path], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    "learner, kind",
    [
        (fewshot.maml(SGD, num_steps=2), "classes"),
        (fewshot.maml(SGD, num_steps=7, patterns=("backbone/second/.*", "heads/.*")), "classes"),
        (fewshot.meta_sgd(0.2), "one number"),
        pytest.param(fewshot.anil(SGD, num_steps=3), "one number", marks=pytest.mark.slow),
        pytest.param(fewshot.maml(SGD, num_steps=3), "numbers", marks=pytest.mark.slow),
        pytest.param(fewshot.meta_sgd(0.2, num_steps=2), "classes", marks=pytest.mark.slow),
    ],
    ids=["MAML", "layers", "Meta-SGD", "ANIL", "MAML of numbers", "Meta-SGD of classes"],
)
def test_the_meta_gradient_is_that_of_second_order(learner, kind):
    model, numbers = MODELS[kind]
    params = parameters(model, learner)
    loss, gradient = gradients(learner, params, *episode(numbers=numbers), model=model)
    slope, expected = central_difference(loss, params, gradient)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


def test_orders_and_parts_differ_where_they_must():
    params, rows = parameters(), episode()

    def kernel(learner):
        slope = gradients(learner, params, *rows)[1]["backbone"]["first"]["kernel"]
        return np.asarray(slope)

    second = kernel(fewshot.maml(SGD))
    first = kernel(fewshot.maml(SGD, first_order=True))
    head = kernel(fewshot.anil(SGD))
    for one, other in ((second, first), (second, head), (first, head)):
        assert abs(one - other).max() > 1e-2 * abs(second).max()


@pytest.mark.slow
def test_a_tiny_rate_is_training_on_the_queries():
    params, rows = parameters(), episode()

    def kernel(learner):
        return gradients(learner, params, *rows)[1]["backbone"]["first"]["kernel"]

    tiny = optax.sgd(1e-9)
    plain = kernel(fewshot.maml(SGD, num_steps=0))
    for learner in (fewshot.maml(tiny), fewshot.maml(tiny, first_order=True), fewshot.anil(tiny)):
        np.testing.assert_allclose(kernel(learner), plain, rtol=1e-6, atol=1e-9)


def test_no_steps_is_training_on_the_queries():
    params, (support, queries) = parameters(), episode()
    value, slopes = backward(params, queries.inputs, queries.labels)
    loss, gradient = gradients(fewshot.maml(SGD, num_steps=0), params, support, queries)
    np.testing.assert_allclose(loss(params), value, rtol=1e-10)
    for path, leaf in flat(gradient).items():
        np.testing.assert_allclose(leaf, slopes[path], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("num_steps", [2, pytest.param(7, marks=pytest.mark.slow)])
def test_rematerialised_steps_are_the_same(num_steps):
    params, rows = parameters(), episode()
    _, gradient = gradients(fewshot.maml(SGD, num_steps=num_steps), params, *rows)
    _, again = gradients(fewshot.maml(SGD, num_steps=num_steps, remat=True), params, *rows)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), gradient, again)


@pytest.mark.slow
def test_more_steps_in_evaluation():
    params, rows = parameters(), episode()
    learner = fewshot.maml(SGD, num_steps=1, eval_steps=4)
    for train, steps in ((True, 1), (False, 4)):
        same = answers(fewshot.maml(SGD, num_steps=steps), params, *rows, train=True)
        np.testing.assert_array_equal(answers(learner, params, *rows, train=train), same)
    tuned = fewshot.fine_tuning(SGD, num_steps=4, fresh_head=False)
    np.testing.assert_allclose(
        answers(tuned, params, *rows), answers(learner, params, *rows), rtol=1e-12
    )


@pytest.mark.slow
def test_equal_rates_are_one_rate():
    learner = fewshot.meta_sgd(RATE, num_steps=2)
    params = parameters(learner=learner)
    params["rates"] = jax.tree.map(lambda rate: jnp.full_like(rate, RATE), params["rates"])
    assert flat(params["rates"]).keys() == flat(parameters()).keys()
    logits = answers(learner, params, *episode())
    maml = answers(fewshot.maml(SGD, num_steps=2), params, *episode())
    np.testing.assert_allclose(logits, maml, rtol=1e-12)
    _, gradient = gradients(learner, params, *episode())
    assert all(abs(rate).max() > 0 for rate in jax.tree.leaves(gradient["rates"]))


@pytest.mark.parametrize("kind", [pytest.param("classes", marks=pytest.mark.slow), "one number"])
def test_implicit_gradient(kind):
    model, numbers = MODELS[kind]
    learner = fewshot.implicit_maml(optax.sgd(0.05), penalty=3.0, num_steps=500, solver_steps=80)
    params, rows = parameters(model), episode(numbers=numbers)
    loss, gradient = gradients(learner, params, *rows, model=model)
    slope, expected = central_difference(loss, params, gradient)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


@pytest.mark.slow
def test_the_implicit_minimum_is_near_the_start():
    params, (support, queries) = parameters(), episode()
    plain = answers(fewshot.maml(SGD, num_steps=0), params, support, queries)
    distances = []
    for penalty in (1.0, 100.0):
        inner = optax.sgd(1 / (penalty + 3))
        learner = fewshot.implicit_maml(inner, penalty=penalty, num_steps=60)
        distances.append(abs(answers(learner, params, support, queries) - plain).max())
    assert 0 < 20 * distances[1] < distances[0]


def test_reptile_steps_towards_what_training_makes():
    params, episodes = parameters(), [episode(0), episode(1)]
    method = fewshot.reptile(optax.sgd(1.0), SGD, num_steps=3)
    loss_fn = method.updates[0].loss
    batch = batch_of(*episodes)

    @jax.jit
    @jax.grad
    def slope(params):
        return loss_fn(MODEL, params, State({}), batch, jax.random.key(0), 0)[0]

    changes = []
    for task in episodes:
        rows = [np.concatenate(pair) for pair in zip(*task, strict=True)]
        fast = params
        for _ in range(3):
            fast = stepped(fast, backward(fast, *rows[:2])[1])
        changes.append(jax.tree.map(lambda a, b: np.asarray(a) - b, params, fast))
    expected = jax.tree.map(lambda a, b: (a + b) / 2, *changes)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12),
        slope(params),
        expected,
    )


@pytest.mark.slow
def test_reptile_with_one_step_is_joint_training():
    params, task = parameters(), episode()
    method = fewshot.reptile(optax.sgd(1.0), optax.sgd(1.0), num_steps=1)
    loss = method.updates[0].loss
    slope = jax.grad(lambda p: loss(MODEL, p, State({}), batch_of(task), jax.random.key(0), 0)[0])
    rows = [np.concatenate(pair) for pair in zip(*task, strict=True)]
    for path, leaf in flat(jax.jit(slope)(params)).items():
        np.testing.assert_allclose(
            leaf, backward(params, *rows[:2])[1][path], rtol=1e-8, atol=1e-12
        )


@pytest.mark.slow
def test_rows_of_the_support_are_drawn_and_never_padding():
    params, (support, queries) = parameters(), episode(shots=3)
    support = support._replace(weights=np.arange(9.0) % 3 > 0)  # three are padding
    learner = fewshot.baseline(SGD, num_steps=4, rows=2)
    far = np.where(support.weights[:, None] > 0, support.inputs, 1e6)
    support = support._replace(weights=support.weights.astype(float))
    logits = answers(learner, params, support, queries)
    np.testing.assert_array_equal(
        answers(learner, params, support._replace(inputs=far), queries), logits
    )
    all_rows = answers(fewshot.baseline(SGD, num_steps=4), params, support, queries)
    assert abs(logits - all_rows).max() > 1e-3
    by_hand = answers(fewshot.baseline(SGD, num_steps=4, rows=99), params, support, queries)
    np.testing.assert_array_equal(by_hand, all_rows)


def test_the_backbone_of_a_frozen_loop_runs_once():
    params, (support, queries) = parameters(), episode()

    def products(learner):
        def predict(params):
            args = (State({}), support, queries)
            return learner.predict(MODEL, params, *args, ways=WAYS, rng=KEY, train=True)

        jaxpr = jax.make_jaxpr(predict)(params)
        (loop,) = (eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan")
        return str(loop.params["jaxpr"]).count("dot_general")

    assert products(fewshot.anil(SGD)) == 2  # the head, and its gradient
    assert products(fewshot.maml(SGD)) == 3 + 5
