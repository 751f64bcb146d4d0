"""Rules over the losses of tasks, against computations of their own."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from several_tasks import KEY, RATE, SGD, begun, losses, stage, stepped, stepper
from tiny import assert_same, train

from jaxtl import paths
from jaxtl.losses import task_losses
from jaxtl.methods import multitask, transfer
from jaxtl.methods.multitask.pcgrad import project_conflicts
from jaxtl.models import apply_flat
from jaxtl.plan import Method, State, Update, Weigh, stateless

RULE = paths.key(jax.random.fold_in(jax.random.fold_in(KEY, 0), 0), "rule")


def flat_rows(tree):
    """[tasks, all numbers] float64."""
    leaves = [leaf for _, leaf in sorted(paths.flatten(tree).items())]
    return np.concatenate([np.float64(leaf).reshape(len(leaf), -1) for leaf in leaves], 1)


def without_conflicts(rows, orders):
    """Algorithm 1 of the paper, on the gradients themselves."""
    result = []
    for i, order in enumerate(orders):
        mine = rows[i].copy()
        for j in order:
            if j != i and mine @ rows[j] < 0:
                mine -= (mine @ rows[j]) / (rows[j] @ rows[j]) * rows[j]
        result.append(mine)
    return np.stack(result)


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_projection_needs_inner_products_only(tasks):
    rng = np.random.default_rng(tasks)
    rows = rng.normal(size=(tasks, 4)) - 0.3
    orders = [jax.random.permutation(key, tasks) for key in jax.random.split(KEY, tasks)]
    coefficients = project_conflicts(jnp.float32(rows @ rows.T), KEY)
    expected = without_conflicts(rows, np.asarray(orders))
    assert (rows @ rows.T < 0).any()
    np.testing.assert_allclose(coefficients @ rows, expected, rtol=1e-4, atol=1e-5)
    alike = np.abs(rows)  # nobody disagrees
    np.testing.assert_array_equal(
        project_conflicts(jnp.float32(alike @ alike.T), KEY), np.eye(tasks)
    )


@pytest.mark.parametrize(
    ("shared", "parts"),
    [(("backbone/.*",), 1), (("backbone/.*",), 4), ((".*",), 1), (("backbone/.*/kernel",), 2)],
)
def test_a_step_of_pcgrad(shared, parts):
    setup, state, batch = begun(multitask.joint(SGD, multitask.pcgrad(), shared=shared))
    before = state.params
    jacobian = jax.jit(jax.jacrev(lambda params: losses(setup.model, params, batch)))(before)
    flat = paths.flatten(jacobian)
    between = {p: leaf for p, leaf in flat.items() if paths.matches(shared, p)}
    orders = [jax.random.permutation(key, 2) for key in jax.random.split(RULE, 2)]
    total = without_conflicts(flat_rows(paths.nest(between)), np.asarray(orders)).sum(0)
    after, metrics = stepped(setup, state, batch, parts)
    moved = jax.tree.map(lambda old, new: (old - new) / RATE, before, after.params)
    moved = paths.flatten(moved)
    found = np.concatenate([np.ravel(moved[p]) for p in sorted(between)])
    np.testing.assert_allclose(found, total, rtol=1e-4, atol=1e-6)
    for path in flat.keys() - between.keys():
        np.testing.assert_allclose(moved[path], flat[path].sum(0), rtol=1e-4, atol=1e-6)
    rows = flat_rows(paths.nest(between))
    assert metrics["conflicts"] == pytest.approx(float(rows[0] @ rows[1] < 0), abs=1e-6)
    assert after.rules["0"]["steps"] == 1


@pytest.mark.parametrize("parts", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_uncertainties_are_those_of_joint_training(parts):
    """The log-variances as parameters of one objective, which a plain optimizer minimises."""
    setup, state, batch = begun(
        multitask.joint(optax.adam(0.1), multitask.uncertainty_weighting(optax.adam(0.1)))
    )
    tx = optax.adam(0.1)

    def objective(both):
        params, s = both
        value = losses(setup.model, params, batch)
        return jnp.sum(jnp.exp(-s) * value + s / 2)

    both = state.params, jnp.zeros(2)
    opt_state = tx.init(both)
    slope, step = jax.jit(jax.grad(objective)), stepper(setup, parts)
    for _ in range(5):
        weights = np.exp(-np.asarray(both[1]))
        updates, opt_state = tx.update(slope(both), opt_state)
        both = optax.apply_updates(both, updates)
        state, metrics = step(state, batch)
        np.testing.assert_allclose([metrics["weight_0"], metrics["weight_1"]], weights, rtol=1e-5)
    np.testing.assert_allclose(state.rules["0"]["log_variance"], both[1], rtol=1e-4)
    assert_same(state.params, both[0], rtol=1e-3, atol=1e-5)


METHODS = {
    "pcgrad": lambda: multitask.joint(optax.adam(0.05), multitask.pcgrad()),
    "uncertainty": lambda: multitask.joint(
        optax.adam(0.05), multitask.uncertainty_weighting(optax.adam(0.05))
    ),
}


@pytest.mark.parametrize("name", [pytest.param("pcgrad", marks=pytest.mark.slow), "uncertainty"])
def test_a_rule_goes_on_where_it_was_and_seeds_are_their_own(name, tmp_path):
    whole = train(stage(METHODS[name]()), tmp_path / "whole")
    assert whole.curves["loss"][-3:].mean() < whole.curves["loss"][:3].mean()
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/10")
    resumed = train(stage(METHODS[name]()), tmp_path / "cut")
    assert_same(resumed.params, whole.params)
    alone = train(stage(METHODS[name]()), tmp_path / "alone", seeds=(1,))
    second = jax.tree.map(lambda leaf: leaf[1:], whole.params)
    assert_same(alone.params, second, rtol=1e-5, atol=1e-6)


def test_the_jacobian_of_the_whole_batch_is_combined_once():
    """Not the gradients that a rule makes of each micro-batch."""
    loss = multitask.joint(SGD, multitask.pcgrad()).updates[0].loss
    largest = stateless(lambda jacobian, v: jax.tree.map(lambda leaf: jnp.max(leaf, 0), jacobian))
    method = Method({"all": ((".*",), SGD)}, (Update(loss, per_example=True, combine=largest),))
    setup, state, batch = begun(method)
    whole, cut = (stepped(setup, state, batch, parts)[0].params for parts in (1, 4))
    assert_same(whole, cut, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("per", ["head", "domain", "pair"])
def test_a_rule_meets_the_terms_of_the_objective(per):
    """Of heads, of domains or of both; by weights of 1 it is ordinary training."""
    plain, _, _ = begun(transfer.full(SGD), domains=2)
    ones = NONE._replace(update=lambda values, state, rng: (jnp.ones_like(values), state, {}))
    setup, state, batch = begun(multitask.joint(SGD, ones, per=per), domains=2)
    after, metrics = stepped(setup, state, batch)
    expected, whole = stepped(plain, state._replace(rules={}), batch)
    assert_same(after.params, expected.params, rtol=1e-4, atol=1e-6)
    names = {
        "head": ["kind_loss", "size_loss"],
        "domain": ["domain_0_loss", "domain_1_loss"],
        "pair": ["kind_0_loss", "kind_1_loss", "size_0_loss", "size_1_loss"],
    }
    terms = [float(metrics[name]) for name in names[per]]
    assert sum(terms) == pytest.approx(float(whole["loss"]), rel=1e-5)
    if per == "domain":  # what is of no domain is missing from its term
        hidden = {name: leaf.at[:, 1].set(0) for name, leaf in batch.weights.items()}
        _, metrics = stepped(setup, state, batch.replace(weights=hidden))
        assert metrics["domain_1_loss"] == 0
        assert metrics["domain_0_loss"] == pytest.approx(terms[0], rel=1e-6)


def test_domains_share_the_heads_too():
    rule = stateless(lambda jacobian, losses: jax.tree.map(lambda leaf: leaf[1], jacobian))
    setup, state, batch = begun(multitask.joint(SGD, rule, per="domain"), domains=2)
    after, _ = stepped(setup, state, batch)
    slope = jax.grad(lambda params: task_losses_of(setup, params, batch)[1])(state.params)
    assert_same(
        jax.tree.map(lambda old, new: (old - new) / RATE, state.params, after.params),
        slope,
        rtol=1e-3,
        atol=1e-5,
    )


def task_losses_of(setup, params, batch):
    output, _ = apply_flat(setup.model, params, State({}), batch.inputs, train=True)
    return task_losses(setup.model.heads, output["logits"], batch, "domain")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shared": ("backbon/.*",)}, "matches nothing that trains"),
        ({"per": "domain"}, "this stage has one, 'domain_0_loss': name several domains"),
    ],
)
def test_what_cannot_be_joined_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        setup, state, batch = begun(multitask.joint(SGD, multitask.pcgrad(), **arguments))
        stepped(setup, state, batch)


def update_of(**rules):
    loss = multitask.joint(SGD, multitask.pcgrad()).updates[0].loss
    return Method({"all": ((".*",), SGD)}, (Update(loss, **rules),))


NONE = Weigh(lambda moved, values: (), lambda values, state, rng: (values, state, {}))
WRONG = {
    "two rules": (update_of(weigh=NONE, combine=stateless(lambda j, v: j)), "weigh and combine"),
    "one weight too many": (
        update_of(weigh=NONE._replace(update=lambda v, s, r: (jnp.ones(3), s, {}))),
        "weigh must return weights as many as losses",
    ),
    "a pair": (update_of(weigh=NONE._replace(update=lambda v, s, r: (v, s))), "weigh must return"),
    "a name that is taken": (
        update_of(weigh=NONE._replace(update=lambda v, s, r: (v, s, {"kind_loss": v[0]}))),
        "logs 'kind_loss'",
    ),
    "the Jacobian": (update_of(combine=stateless(lambda j, v: j)), "gradients of what it moves"),
    "a scalar loss": (
        dataclasses.replace(
            transfer.full(SGD),
            updates=(dataclasses.replace(transfer.full(SGD).updates[0], weigh=NONE),),
        ),
        r"must be a vector \[tasks\] of floats",
    ),
    "a function": (lambda: update_of(combine=lambda j, v: j), "combine must be"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_rule_must_be_is_said_in_one_line(case):
    method, line = WRONG[case]
    with pytest.raises(ValueError, match=line) as error:
        setup, state, batch = begun(method() if callable(method) else method)
        stepped(setup, state, batch)
    assert len(str(error.value).splitlines()) == 1
