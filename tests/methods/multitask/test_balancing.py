"""Rules that weigh losses, against the recursions of their papers in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from several_tasks import KEY, RATE, SGD, begun, losses, stepped

from jaxtl.methods import multitask
from jaxtl.methods.multitask.imtl import impartial
from jaxtl.plan import Combine

STEP = optax.sgd(0.1)
RULES = {
    "equal_weights": multitask.equal_weights,
    "uncertainty_weighting": lambda: multitask.uncertainty_weighting(STEP),
    "dwa": lambda: multitask.dwa(every=2),
    "gls": multitask.gls,
    "rlw": multitask.rlw,
    "gradnorm": lambda: multitask.gradnorm(STEP),
    "imtl_g": multitask.imtl_g,
    "imtl_l": lambda: multitask.imtl_l(STEP),
    "imtl": lambda: multitask.imtl(STEP),
    "famo": multitask.famo,
    "stch": lambda: multitask.stch(warm_up=2),
    "db_mtl": multitask.db_mtl,
    "excess_mtl": multitask.excess_mtl,
}


def played(rule, rows, values):
    """Weights of losses or combined gradients [steps, ...] and weights for what is not shared.

    Args:
        rows: [steps, tasks, n] gradients; values: [steps, tasks] losses.
    """
    trainable, zeros = {"w": jnp.zeros(rows.shape[-1])}, jnp.zeros(values.shape[1])
    state = rule.init(trainable, zeros)
    update, made, others = jax.jit(rule.update), [], []
    for number, (jacobian, loss) in enumerate(
        zip(jnp.float32(rows), jnp.float32(values), strict=True)
    ):
        key, before = jax.random.fold_in(KEY, number), state
        if isinstance(rule, Combine):
            gradient, state, metrics = update({"w": jacobian}, loss, state, key)
            made.append(gradient["w"])
            weights = rule.others(loss, before, state) if rule.others else jnp.ones(len(loss))
            others.append(weights)
        else:
            weights, state, metrics = update(loss, state, key)
            made.append(weights)
            if metrics:
                np.testing.assert_array_equal(list(metrics.values()), weights)
        assert jax.tree.structure(before) == jax.tree.structure(state)
        if metrics:
            assert list(metrics) == [f"weight_{i}" for i in range(len(loss))]
    return np.float64(made), np.float64(others)


def sampled(tasks=3, steps=7, width=5, seed=0):
    rng = np.random.default_rng(seed)
    scales = 10.0 ** np.arange(tasks)
    rows = rng.normal(size=(steps, tasks, width)) * scales[:, None]
    return rows, rng.uniform(0.5, 2, size=(steps, tasks)) * scales


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("tasks", [1, 3])
def test_what_a_rule_makes_is_finite(name, tasks):
    """Losses of 0, gradients of 0, equal and opposite ones, one task."""
    rows, values = sampled(tasks)
    alike = np.broadcast_to(rows[:, :1], rows.shape)
    signs = np.where(np.arange(tasks) % 2, -1, 1)[:, None]
    cases = [(0 * rows, 0 * values), (rows, 0 * values), (0 * rows, values)]
    cases += [(alike, values), (alike * signs, values), (1e-18 * rows, 1e-30 * values)]
    partly = np.where(np.arange(tasks)[:, None] == 0, 0, rows)
    rule = RULES[name]()
    for gradients, given in [*cases, (partly, values * (np.arange(tasks) > 0))]:
        made, others = played(rule, gradients, given)
        assert np.isfinite(made).all() and np.isfinite(others).all()


def test_a_learned_scale_of_a_loss_of_zero_stays_finite():
    for rule in (multitask.imtl_l(optax.sgd(30.0)), multitask.uncertainty_weighting(SGD)):
        made, _ = played(rule, np.zeros((9, 2, 1)), np.zeros((9, 2)))
        assert np.isfinite(made).all() and (made[-1] >= made[0]).all()


def test_dwa():
    _, values = sampled(steps=8)
    made, _ = played(multitask.dwa(temperature=1.5, every=2), np.zeros((8, 3, 1)), values)
    means = values.reshape(4, 2, 3).mean(1)
    for step in range(8):
        window = step // 2
        expected = np.ones(3)
        if window >= 2:
            shares = np.exp(means[window - 1] / means[window - 2] / 1.5)
            expected = 3 * shares / shares.sum()
        np.testing.assert_allclose(made[step], expected, rtol=1e-5)


def test_gls_is_the_slope_of_the_geometric_mean():
    _, values = sampled()
    made, _ = played(multitask.gls(), np.zeros((7, 3, 1)), values)
    for weights, loss in zip(made, values, strict=True):
        np.testing.assert_allclose(weights, np.prod(loss) ** (1 / 3) / 3 / loss, rtol=1e-5)


def test_random_weights_are_a_softmax_of_normal_numbers():
    made, _ = played(multitask.rlw(), np.zeros((300, 2, 1)), np.ones((300, 2)))
    np.testing.assert_allclose(made.sum(1), 1, rtol=1e-6)
    logit = np.log(made[:, 0] / made[:, 1])  # a difference of two normal numbers
    assert abs(logit.mean()) < 0.25 and 1.2 < logit.std() < 1.65


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_gradnorm(alpha):
    rows, values = sampled()
    made, others = played(multitask.gradnorm(optax.sgd(0.01), alpha), rows, values)
    weights = np.ones(3)
    for step in range(7):
        np.testing.assert_allclose(made[step], weights @ rows[step], rtol=1e-4)
        np.testing.assert_allclose(others[step], weights, rtol=1e-4)
        lengths = np.linalg.norm(rows[step], axis=1)
        remaining = values[step] / values[0]
        target = (weights * lengths).mean() * (remaining / remaining.mean()) ** alpha

        def distance(w, lengths=lengths, target=target):
            return np.abs(w * lengths - target).sum()

        slope = [(distance(weights + e) - distance(weights - e)) / 2e-6 for e in 1e-6 * np.eye(3)]
        weights = np.maximum(weights - 0.01 * np.array(slope), 0)
        weights = 3 * weights / weights.sum()


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_impartial_gradients_project_alike_on_all(tasks):
    rows = sampled(tasks, steps=1, width=8, seed=tasks)[0][0]
    weights = np.float64(impartial(jnp.float32(rows @ rows.T)))
    lengths = np.linalg.norm(rows, axis=1)
    projections = rows @ (weights @ rows) / lengths
    assert weights.sum() == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(projections, projections[0], rtol=1e-3)
    if tasks == 2:
        np.testing.assert_allclose(weights, lengths[::-1] / lengths.sum(), rtol=1e-5)
    else:  # the closed form of the paper, Eq. 6
        units = rows / lengths[:, None]
        by_others = (rows[:1] - rows[1:]) @ (units[:1] - units[1:]).T
        rest = rows[0] @ (units[:1] - units[1:]).T @ np.linalg.inv(by_others)
        expected = np.array([1 - rest.sum(), *rest])
        np.testing.assert_allclose(weights * np.sign(projections[0]), expected, rtol=1e-3)
    equal = np.float64(impartial(jnp.ones((tasks, tasks))))
    np.testing.assert_allclose(equal, 1 / tasks, rtol=1e-5)


def test_impartial_weights_never_raise_every_loss():
    """The paper's sum of 1 does, for some gradients."""
    turned = 0
    for seed in range(50):
        rows = np.random.default_rng(seed).normal(size=(3, 4)) * [[1], [5], [25]]
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        if np.linalg.cond(units @ units.T) > 100:  # float32
            continue
        weights = np.float64(impartial(jnp.float32(rows @ rows.T)))
        assert (units @ (weights @ rows) > -1e-3).all()
        turned += weights.sum() < 0
    assert turned


def test_learned_scales_bring_losses_to_one():
    values = np.broadcast_to([0.5, 40.0], (400, 2))
    made, _ = played(multitask.imtl_l(optax.adam(0.1)), np.zeros((400, 2, 1)), values)
    np.testing.assert_allclose(made[-1] * values[-1], 1, rtol=1e-2)
    rows = np.broadcast_to(sampled(2, steps=1)[0], (400, 2, 5))
    both, others = played(multitask.imtl(optax.adam(0.1)), rows, values)
    np.testing.assert_allclose(others, made, rtol=1e-4)
    scaled = others[-1][:, None] * rows[-1]
    weights = np.float64(impartial(jnp.float32(scaled @ scaled.T)))
    np.testing.assert_allclose(both[-1], weights @ scaled, rtol=1e-3)


def test_famo():
    _, values = sampled()
    made, _ = played(multitask.famo(), np.zeros((7, 3, 1)), values)
    xi, first, second = np.zeros((3, 3))
    for step in range(7):
        if step:
            shares = np.exp(xi) / np.exp(xi).sum()
            fall = np.log(values[step - 1]) - np.log(values[step])
            slope = (np.diag(shares) - np.outer(shares, shares)) @ fall + 1e-3 * xi
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            ratio = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
            xi = xi - 0.025 * ratio
        shares = np.exp(xi) / np.exp(xi).sum()
        expected = shares / values[step] / np.sum(shares / values[step])
        np.testing.assert_allclose(made[step], expected, rtol=1e-4)


def test_smooth_tchebycheff():
    _, values = sampled(steps=12)
    made, _ = played(multitask.stch(smoothness=0.3, warm_up=8), np.zeros((12, 3, 1)), values)
    np.testing.assert_allclose(made[:8], 1 / values[:8], rtol=1e-5)
    nadir = jnp.float32(values[6:8].mean(0))

    def objective(loss):
        return 0.3 * jax.nn.logsumexp(jnp.log(loss / nadir) / 0.3)

    for weights, loss in zip(made[8:], values[8:], strict=True):
        np.testing.assert_allclose(weights, jax.grad(objective)(jnp.float32(loss)), rtol=1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_dual_balancing(decay):
    rows, values = sampled()
    made, others = played(multitask.db_mtl(decay), rows, values)
    np.testing.assert_allclose(others, 1 / values, rtol=1e-5)
    average = np.zeros_like(rows[0])
    for step in range(7):
        average = decay * average + (1 - decay) * rows[step] / values[step][:, None]
        lengths = np.linalg.norm(average, axis=1)
        np.testing.assert_allclose(made[step], lengths.max() / lengths @ average, rtol=1e-4)


def test_excess_risks():
    rows, values = sampled()
    made, others = played(multitask.excess_mtl(0.3), rows, values)
    weights, squares, start = np.ones(3), np.zeros_like(rows[0]), None
    for step in range(7):
        squares = squares + rows[step] ** 2
        excess = (rows[step] ** 2 / np.sqrt(squares + 1e-7)).sum(1)
        start = excess if step == 0 else start
        weights = weights * np.exp(0.3 * excess / start)
        weights = 3 * weights / weights.sum()
        np.testing.assert_allclose(others[step], weights, rtol=1e-4)
        np.testing.assert_allclose(made[step], weights @ rows[step], rtol=1e-4)


@pytest.mark.parametrize("name", ["gls", "imtl_g", "famo", "stch", "db_mtl"])
def test_units_of_a_loss_do_not_matter(name):
    """Its loss and its gradients in a thousandth of the unit: the same direction of the step."""
    rows, values = sampled(2)
    rule, scale = RULES[name](), np.array([1.0, 1e-3])
    made, _ = played(rule, rows, values)
    again, _ = played(rule, rows * scale[:, None], values * scale)
    if made.shape == values.shape:  # weights of losses
        made, again = made[:, None] @ rows, again[:, None] @ (rows * scale[:, None])
    made, again = (x.reshape(len(x), -1) for x in (made, again))
    cosines = (made * again).sum(1) / np.linalg.norm(made, axis=1) / np.linalg.norm(again, axis=1)
    np.testing.assert_allclose(cosines, 1, rtol=1e-5)


def test_what_tasks_do_not_share_gets_the_gradient_of_its_weighted_loss():
    setup, state, batch = begun(multitask.joint(SGD, multitask.db_mtl()))
    values = losses(setup.model, state.params, batch)
    slope = jax.jit(jax.jacrev(lambda params: losses(setup.model, params, batch)))
    slopes = slope(state.params)
    after, metrics = stepped(setup, state, batch)
    for number, head in enumerate(("kind", "size")):
        for leaf, old in state.params["heads"][head].items():
            moved = (old - after.params["heads"][head][leaf]) / RATE
            wanted = slopes["heads"][head][leaf][number] / values[number]
            np.testing.assert_allclose(moved, wanted, rtol=1e-3, atol=1e-6)
    assert metrics.keys() >= {"weight_0", "weight_1", "kind_loss", "size_loss"}


def test_given_weights():
    weights = (2.0, 0.0, 0.5)
    made, _ = played(multitask.scalarization(weights), np.zeros((1, 3, 1)), np.ones((1, 3)))
    np.testing.assert_array_equal(made[0], weights)
    traced = jax.jit(lambda w: multitask.scalarization((1.0, w)).update(jnp.ones(2), (), KEY)[0])(
        3.0
    )
    np.testing.assert_array_equal(traced, [1, 3])


WRONG = {
    "3 weights were given for 2 losses": lambda: multitask.scalarization((1.0, 1.0, 1.0)),
    "weights.1. must be a number of at least 0": lambda: multitask.scalarization((1.0, -1.0)),
    "dwa: temperature must be a number above 0": lambda: multitask.dwa(0.0),
    "dwa: every must be": lambda: multitask.dwa(every=0),
    "stch: smoothness must be": lambda: multitask.stch(-1.0),
    "db_mtl: decay must be": lambda: multitask.db_mtl(1.0),
    "famo: tx must be": lambda: multitask.famo(0.025),
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_said_in_one_line(line):
    with pytest.raises(ValueError, match=line):
        setup, state, batch = begun(multitask.joint(SGD, WRONG[line]()))
        stepped(setup, state, batch)


@pytest.mark.parametrize("name", ["famo", "gradnorm"])
def test_the_weights_are_logged(name):
    setup, state, batch = begun(multitask.joint(SGD, RULES[name]()))
    logged = jax.eval_shape(lambda *args: stepped(setup, *args)[1], state, batch)
    assert logged.keys() >= {"weight_0", "weight_1"}
