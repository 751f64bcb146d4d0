"""Rules that combine gradients: other solvers, closed forms, what their papers promise."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize, nnls
from several_tasks import KEY

from jaxtl.methods import multitask
from jaxtl.methods.multitask.aligned_mtl import alignment
from jaxtl.methods.multitask.angles import agreement, watched
from jaxtl.methods.multitask.cagrad import conflict_averse
from jaxtl.methods.multitask.gradvac import vaccinate
from jaxtl.methods.multitask.solvers import (
    fair_weights,
    min_norm_weights,
    non_negative_qp,
    project_simplex,
)
from jaxtl.methods.multitask.upgrad import project_on_cone

RULES = {
    "pcgrad": multitask.pcgrad(),
    "gradvac": multitask.gradvac(),
    "graddrop": multitask.graddrop(),
    "mgda": multitask.mgda(),
    "mgda_norm": multitask.mgda("norm"),
    "mgda_loss": multitask.mgda("loss_norm"),
    "sdmgrad": multitask.sdmgrad(),
    "moco": multitask.moco(),
    "cagrad": multitask.cagrad(),
    "cagrad_1": multitask.cagrad(1.0),
    "nash_mtl": multitask.nash_mtl(),
    "fairgrad": multitask.fairgrad(),
    "aligned_mtl": multitask.aligned_mtl(),
    "upgrad": multitask.upgrad(),
}
HARMLESS = {"mgda", "mgda_norm", "mgda_loss", "cagrad_1", "nash_mtl", "fairgrad", "upgrad"}
"""Rules that promise that no task's loss rises to first order."""


def gradients(tasks, seed=0, scales=1.0):
    """[tasks, 12] float64 with conflicts."""
    rng = np.random.default_rng((tasks, seed))
    rows = rng.normal(size=(tasks, 12)) - 0.4 * rng.normal(size=12)
    return rows * np.broadcast_to(scales, tasks)[:, None]


@functools.cache
def combined(name, dtype="float32"):
    """(rows [tasks, n], losses [tasks]) -> the rule's first gradient [n], compiled."""
    rule = RULES[name]

    def combine(rows, losses, rng):
        jacobian = {"a": rows[:, :5], "b": {"c": rows[:, 5:].reshape(len(rows), -1, 1)}}
        one = jax.tree.map(lambda leaf: leaf[0], jacobian)
        state = rule.init(one, jnp.zeros_like(losses))
        grads, _, metrics = rule.update(jacobian, losses, state, rng)
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(grads)]), metrics

    return jax.jit(combine)


def apply(name, rows, losses=None):
    losses = np.ones(len(rows)) if losses is None else losses
    return np.float64(combined(name)(jnp.float32(rows), jnp.float32(losses), KEY)[0])


@pytest.fixture
def doubles():
    with jax.enable_x64(True):
        yield


def shortest(rows):
    """The shortest point of the convex hull: Wolfe's trick of one more row, by SciPy."""
    size = np.abs(rows).max()
    stacked = np.vstack([rows.T, np.full(len(rows), size)])
    weights = nnls(stacked, np.r_[np.zeros(rows.shape[1]), size])[0]
    return weights / weights.sum()


def fair(products, power):
    """The minimum of the convex function whose gradient is G a - a ** -power, by SciPy."""
    unit = np.diagonal(products) ** (-1 / (1 + power))  # a = unit * y

    def value(y):
        a = unit * y
        barrier = np.log(a) if power == 1 else a ** (1 - power) / (1 - power)
        return a @ products @ a / 2 - barrier.sum(), unit * (products @ a - a**-power)

    bounds = [(1e-6, None)] * len(unit)
    options = {"ftol": 1e-15, "gtol": 1e-10}
    start = np.ones(len(unit))
    return unit * minimize(value, start, jac=True, bounds=bounds, options=options).x


@pytest.mark.parametrize("tasks", [2, 3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_solvers_agree_with_scipy(tasks, seed, doubles):
    rows = gradients(tasks, seed, 10.0 ** np.arange(tasks) if seed else 1.0)
    products, target = rows @ rows.T, np.random.default_rng(seed).normal(size=12)
    solution = jax.jit(non_negative_qp)(products, rows @ target)
    np.testing.assert_allclose(solution, nnls(rows.T, target)[0], rtol=1e-8, atol=1e-10)
    weights = jax.jit(min_norm_weights)(products)
    np.testing.assert_allclose(weights, shortest(rows), rtol=1e-8, atol=1e-10)
    for power in (0.5, 1.0, 2.0):
        weights = jax.jit(fair_weights)(products, power)
        np.testing.assert_allclose(products @ weights * weights**power, 1, rtol=1e-8)
        np.testing.assert_allclose(weights, fair(products, power), rtol=1e-4)
    free = 3 * np.random.default_rng(seed).normal(size=tasks)
    nearest = minimize(
        lambda w: np.sum((w - free) ** 2),
        np.full(tasks, 1 / tasks),
        bounds=[(0, 1)] * tasks,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        tol=1e-14,
    ).x
    np.testing.assert_allclose(project_simplex(free), nearest, atol=1e-6)


@pytest.mark.parametrize("tasks", [2, 3, 5])
@pytest.mark.parametrize("c", [0.2, 0.5, 1.0, 3.0])
def test_cagrad_is_the_best_for_the_worst_task(tasks, c, doubles):
    """Against the maximum over directions themselves, not over weights as the paper does."""
    rows = gradients(tasks)
    mean, radius = rows.mean(0), c * np.linalg.norm(rows.mean(0))
    basis = np.linalg.qr(rows.T)[0].T  # of the span

    def worst(z):
        return z[-1]

    constraints = [
        {"type": "ineq", "fun": lambda z: rows @ (z[:-1] @ basis) - z[-1]},
        {"type": "ineq", "fun": lambda z: radius**2 - np.sum((z[:-1] @ basis - mean) ** 2)},
    ]
    start = np.r_[basis @ mean, (rows @ mean).min()]
    best = minimize(lambda z: -worst(z), start, constraints=constraints, tol=1e-12)
    found = np.asarray(jax.jit(conflict_averse)(rows @ rows.T, c)) @ rows
    assert np.linalg.norm(found - mean) <= radius * (1 + 1e-6)
    assert (rows @ found).min() == pytest.approx(-best.fun, rel=1e-5, abs=1e-8)
    assert (rows @ found).min() >= (rows @ mean).min()


def test_two_tasks_in_closed_form():
    first, second = gradients(2, 3, [1.0, 3.0])
    both = np.stack([first, second])
    gap = second - first
    share = np.clip(second @ gap / (gap @ gap), 0, 1)
    np.testing.assert_allclose(apply("mgda", both), share * first + (1 - share) * second, rtol=1e-4)
    # a_1 |g_1| = a_2 |g_2| = 1 / sqrt(1 + cos): the bisector.
    units = both / np.linalg.norm(both, axis=1, keepdims=True)
    bisector = units.sum(0) / np.sqrt(1 + units[0] @ units[1])
    np.testing.assert_allclose(apply("nash_mtl", both), bisector, rtol=1e-4, atol=1e-5)
    conflict = np.stack([first, second - 2 * (first @ second) / (first @ first) * first])
    conflict = conflict if conflict[0] @ conflict[1] < 0 else both
    a, b = conflict
    assert a @ b < 0
    freed = a - a @ b / (b @ b) * b, b - a @ b / (a @ a) * a
    for name, factor in (("pcgrad", 1), ("upgrad", 0.5), ("gradvac", 1)):
        np.testing.assert_allclose(apply(name, conflict), factor * sum(freed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "tasks", [*(pytest.param(few, marks=pytest.mark.slow) for few in (2, 3)), 5]
)
@pytest.mark.parametrize("seed", range(3))
def test_what_the_papers_promise(tasks, seed):
    rows = gradients(tasks, seed, 3.0 ** np.arange(tasks))
    lengths = np.linalg.norm(rows, axis=1)
    for name in HARMLESS:
        found = apply(name, rows)
        slack = 2e-3 * lengths * np.linalg.norm(found)
        assert np.all(rows @ found >= -slack), (name, rows @ found)
    shortest_mean = apply("mgda", rows)
    assert np.all(rows @ shortest_mean >= shortest_mean @ shortest_mean * 0.99 - 1e-5)
    bargain = apply("nash_mtl", rows)
    assert np.linalg.norm(bargain) == pytest.approx(np.sqrt(tasks), rel=1e-3)
    scaled = rows * np.linspace(0.1, 7, tasks)[:, None]
    np.testing.assert_allclose(apply("nash_mtl", scaled), bargain, rtol=2e-3, atol=2e-3)
    divided = apply("mgda_norm", rows), apply("mgda_norm", scaled)
    directions = [each / np.linalg.norm(each) for each in divided]
    np.testing.assert_allclose(*directions, rtol=2e-3, atol=2e-3)
    losses = np.arange(1.0, tasks + 1)
    by_loss = apply("mgda_loss", rows, losses)
    again = apply("mgda_loss", losses[:, None] * rows / lengths[:, None], losses)
    assert np.all(rows @ by_loss >= -1e-3 * lengths * np.linalg.norm(by_loss))
    np.testing.assert_allclose(
        again / np.linalg.norm(again), by_loss / np.linalg.norm(by_loss), rtol=5e-3, atol=5e-3
    )
    for name in RULES.keys() - {"nash_mtl", "fairgrad", "moco"}:  # of degree 1 in the gradients
        np.testing.assert_allclose(
            apply(name, 8 * rows), 8 * apply(name, rows), rtol=1e-2, atol=1e-3, err_msg=name
        )


@pytest.mark.parametrize("tasks", [2, 4])
def test_aligned_gradients_are_orthogonal_and_of_one_length(tasks, doubles):
    rows = gradients(tasks, 1, 3.0 ** np.arange(tasks))
    aligned = np.asarray(jax.jit(alignment)(rows @ rows.T)) @ rows
    singular = np.linalg.svd(rows, compute_uv=False)
    np.testing.assert_allclose(aligned @ aligned.T, singular[-1] ** 2 * np.eye(tasks), atol=1e-10)
    one_more = np.vstack([rows, rows.sum(0)])  # of the rank of the others
    aligned = np.asarray(alignment(one_more @ one_more.T)) @ one_more
    values = np.linalg.svd(aligned, compute_uv=False)
    np.testing.assert_allclose(values[:tasks], values[0], rtol=1e-8)
    assert values[-1] < 1e-8


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_projection_on_the_dual_cone(tasks, doubles):
    rows = gradients(tasks, 2)
    projected = np.asarray(jax.jit(project_on_cone)(rows @ rows.T)) @ rows
    for row, found in zip(rows, projected, strict=True):
        reference = minimize(
            lambda d: np.sum((d - row) ** 2),  # noqa: B023
            found + 0.1,
            jac=lambda d: 2 * (d - row),  # noqa: B023
            constraints={"type": "ineq", "fun": lambda d: rows @ d, "jac": lambda d: rows},
            tol=1e-14,
        ).x
        np.testing.assert_allclose(found, reference, atol=1e-5)


def test_what_does_not_conflict_is_summed():
    rows = np.abs(gradients(3))
    total = rows.sum(0)
    for name in ("pcgrad", "graddrop", "gradvac"):
        np.testing.assert_allclose(apply(name, rows), total, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(apply("upgrad", rows), total / 3, rtol=1e-5)


def test_gradvac_turns_a_gradient_to_the_usual_cosine():
    rows = gradients(3, 5)
    usual = np.array([[0, 0.4, -0.9], [0.7, 0, 0.2], [-0.8, 0.5, 0]])
    orders = np.array([[1, 0, 2], [2, 0, 1], [0, 1, 2]])
    weights, cosines = jax.jit(vaccinate)(*map(jnp.float32, (rows @ rows.T, usual)), orders)
    turned, met = rows.copy(), np.zeros((3, 3))
    for i, order in enumerate(orders):
        for j in order[order != i]:
            length, other = np.linalg.norm(turned[i]), np.linalg.norm(rows[j])
            met[i, j] = cosine = turned[i] @ rows[j] / length / other
            if cosine < usual[i, j]:
                sines = np.sqrt(1 - cosine**2), np.sqrt(1 - usual[i, j] ** 2)
                turned[i] += (
                    length * (usual[i, j] * sines[0] - cosine * sines[1]) / other / sines[1]
                ) * rows[j]
                after = turned[i] @ rows[j] / np.linalg.norm(turned[i]) / other
                assert after == pytest.approx(usual[i, j])
    np.testing.assert_allclose(weights @ rows, turned, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(cosines, met, atol=1e-5)
    rule, losses = multitask.gradvac(beta=0.25), jnp.ones(3)
    state = rule.init({}, losses)
    for _ in range(2):
        _, state, _ = rule.update({"a": jnp.float32(np.abs(rows))}, losses, state, KEY)
    lengths = np.linalg.norm(rows, axis=1)
    plain = np.abs(rows) @ np.abs(rows).T / np.outer(lengths, lengths) * (1 - np.eye(3))
    np.testing.assert_allclose(state, (1 - 0.75**2) * plain, rtol=1e-4, atol=1e-6)


def test_gradients_of_one_sign_are_drawn_by_its_purity():
    rows = gradients(3)
    draws = jax.vmap(lambda key: combined("graddrop")(jnp.float32(rows), jnp.ones(3), key)[0])
    found = np.float64(draws(jax.random.split(KEY, 4000)))
    purity = (1 + rows.sum(0) / np.abs(rows).sum(0)) / 2
    positive, negative = np.maximum(rows, 0).sum(0), np.minimum(rows, 0).sum(0)
    distance = np.minimum(abs(found - positive[None]), abs(found - negative[None]))
    assert distance.max() < 1e-5
    spread = (positive - negative) * np.sqrt(purity * (1 - purity) / 4000)
    mean = purity * positive + (1 - purity) * negative
    assert np.all(abs(found.mean(0) - mean) < 4.5 * spread + 1e-6)
    leaking = multitask.graddrop(leak=1.0)
    plain, _, _ = leaking.update({"a": jnp.float32(rows)}, jnp.ones(3), (), KEY)
    np.testing.assert_allclose(plain["a"], rows.sum(0), rtol=1e-5, atol=1e-6)


def test_moco_follows_gradients_and_ends_at_the_shortest_mean():
    rows, rule = gradients(3, 1), multitask.moco(beta=0.5, gamma=0.02)
    jacobian, losses = {"a": jnp.float32(rows)}, jnp.ones(3)

    def step(state, _):
        grads, state, _ = rule.update(jacobian, losses, state, KEY)
        return state, grads["a"]

    state = rule.init({"a": jnp.zeros(12)}, losses)
    state, directions = jax.jit(lambda state: jax.lax.scan(step, state, None, 600))(state)
    averages, weights = np.zeros_like(rows), np.full(3, 1 / 3)
    for found in directions[:3]:
        averages += 0.5 * (rows - averages)
        weights = weights - 0.02 * averages @ averages.T @ weights
        weights = np.asarray(project_simplex(jnp.float32(weights)))
        np.testing.assert_allclose(found, weights @ averages, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state["weights"], shortest(rows), atol=2e-3)


def test_sdmgrad_is_between_the_shortest_mean_and_the_mean():
    rows = gradients(4)
    expected = shortest(rows + 0.3 * rows.mean(0)) @ rows + 0.3 * rows.mean(0)
    np.testing.assert_allclose(apply("sdmgrad", rows), expected / 1.3, rtol=1e-3, atol=1e-4)


ODD = {
    "zero": np.zeros((3, 12)),
    "one is zero": gradients(3) * [[1], [0], [1]],
    "equal": np.tile(gradients(1), (3, 1)),
    "opposite": np.concatenate([gradients(1), -gradients(1)]),
    "in a plane": gradients(5) @ np.diag([1, 1] + [0] * 10),
    "one task": gradients(1),
    "tiny": 1e-12 * gradients(3),
    "large": 1e8 * gradients(3),
    "far apart": gradients(3, 0, [1e-5, 1, 1e5]),
}


@pytest.mark.parametrize("name", RULES)
def test_whatever_the_gradients_are_the_result_is_finite(name):
    for what, rows in ODD.items():
        for losses in (np.ones(len(rows)), np.zeros(len(rows))):
            found = apply(name, rows, losses)
            assert np.isfinite(found).all(), what
            if what == "zero":
                assert not found.any()
            if what in ("equal", "one task") and name not in ("nash_mtl", "fairgrad", "moco"):
                factors = found / rows[0]
                np.testing.assert_allclose(factors, factors[0], rtol=1e-3, err_msg=what)
                assert factors[0] > 0.3
    several = np.stack([gradients(3, seed, [1, 2, 0.1]) for seed in range(3)] + [ODD["equal"]])
    keys = jnp.stack([KEY] * len(several))
    each, metrics = jax.vmap(combined(name))(jnp.float32(several), jnp.ones((4, 3)), keys)
    for rows, found in zip(several, each, strict=True):
        np.testing.assert_allclose(found, apply(name, rows), rtol=1e-3, atol=1e-4)
    assert all(np.isfinite(value).all() for value in metrics.values())


def test_the_log_says_how_gradients_agree():
    rows = gradients(3)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = list(itertools.combinations(range(3), 2))
    cosines = np.array([units[i] @ units[j] for i, j in pairs])
    logged = agreement(jnp.float32(rows @ rows.T))
    assert logged["conflicts"] == pytest.approx(np.mean(cosines < 0))
    assert logged["cosine"] == pytest.approx(cosines.mean(), abs=1e-5)
    for (i, j), cosine in zip(pairs, cosines, strict=True):
        assert logged[f"cosine_{i}_{j}"] == pytest.approx(cosine, abs=1e-5)
    assert agreement(jnp.ones((1, 1))) == {} and len(agreement(jnp.eye(5))) == 2
    rule, losses = watched(multitask.graddrop()), jnp.ones(3)
    state, update = rule.init({"a": jnp.zeros(12)}, losses), jax.jit(rule.update)
    for sign in (1, -1, -1):
        signs = np.array([[1], [1], [sign]])
        _, state, metrics = update({"a": jnp.float32(rows * signs)}, losses, state, KEY)
    share = np.array([1, 0.99, 0.99**2])[::-1] / (1 + 0.99 + 0.99**2)
    expected = share @ [cosines[1], -cosines[1], -cosines[1]]
    assert metrics["cosine_0_2"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: multitask.cagrad(-1.0), "cagrad: c must be a number of at least 0"),
        (lambda: multitask.mgda("l2"), "divided_by must be 'none' or 'norm' or 'loss'"),
        (lambda: multitask.graddrop(2.0), r"leak must be a number in \[0, 1\]"),
        (lambda: multitask.fairgrad(0.0), "alpha must be a number above 0"),
        (lambda: multitask.gram_rule(3), "coefficients must be a function of 4 arguments, got 3"),
    ],
)
def test_constants_that_cannot_be_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda weights: (weights, ()), r"must return \(weights, state, \{metric: value\}\)"),
        (lambda weights: (weights[:1], (), {}), "must return 3 weights, one for each task"),
    ],
)
def test_coefficients_of_another_form_are_refused(returned, message):
    rule = multitask.gram_rule(lambda products, losses, state, rng: returned(losses))
    with pytest.raises(ValueError, match=message):
        rule.update({"a": jnp.ones((3, 2))}, jnp.ones(3), (), KEY)
