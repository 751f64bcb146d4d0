"""Soups, interpolation, WiSE-FT and refreshed batch statistics against sums by hand."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shapes import SHAPE

from jaxtl import models
from jaxtl.methods import transfer
from jaxtl.models import classes
from jaxtl.paths import flatten
from jaxtl.plan import Columns, Method, Module, State

SGD = optax.sgd(0.1)


def tree(*values):
    return {"a": {"x": np.float32(values[0])}, "b": np.float32(values[1:])}


def test_uniform_soup_and_interpolation_by_hand():
    soup = transfer.uniform_soup([tree(1, 2, 3), tree(4, 6, 8), tree(1, 1, -2)])
    assert soup["a"]["x"] == 2
    np.testing.assert_allclose(soup["b"], [3, 3])
    between = transfer.interpolate(tree(1, 2, 3), tree(5, 6, 3), 0.25)
    assert between["a"]["x"] == 2
    np.testing.assert_array_equal(between["b"], [3, 3])


def test_interpolation_of_equal_numbers_is_exact():
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    np.testing.assert_array_equal(transfer.interpolate({"x": x}, {"x": x}, 0.3)["x"], x)


def test_greedy_soup_takes_what_does_not_lower_the_score():
    """Scores -|x - 10|: 9 begins; with 12 it is 10.5, better; with 5 or 30 worse; 11.1 is not."""
    members = [{"x": np.float64(value)} for value in (30, 12, 9, 5, 11.1)]
    asked = []

    def score(params):
        asked.append(float(params["x"]))
        return -abs(params["x"] - 10)

    soup, chosen = transfer.greedy_soup(members, score)
    assert chosen == [2, 4]  # 9 and 11.1 make 10.05; with 12 it were 10.7
    assert soup["x"] == pytest.approx(10.05)
    np.testing.assert_allclose(asked[5:], [10.05, 32.1 / 3, 25.1 / 3, 50.1 / 3])


def test_greedy_soup_keeps_a_member_that_changes_nothing():
    members = [{"x": np.float64(value)} for value in (1, 2, 3)]
    soup, chosen = transfer.greedy_soup(members, lambda params: 1.0)
    assert chosen == [0, 1, 2] and soup["x"] == 2


@pytest.mark.parametrize("cook", [transfer.uniform_soup, lambda m: transfer.greedy_soup(m, float)])
def test_a_soup_of_nothing_is_refused(cook):
    with pytest.raises(ValueError, match="at least one member"):
        cook([])


def test_wise_ft_lies_between_the_ends_of_the_stage_before():
    fine, wise = transfer.anchored(transfer.full(SGD)), transfer.wise_ft(0.25)
    assert fine.remembers and wise.remembers
    begin, end = tree(1, 2, 3), tree(5, 2, 11)
    stale = State({}, fine.state(None, tree(7, 7, 7), {}, SHAPE))  # handed on by an earlier stage
    params, state = fine.prepare(None, begin, stale, [])
    assert params is begin
    assert jax.tree.structure(state.method) == jax.tree.structure(wise.state(None, end, {}, SHAPE))
    found, _ = wise.prepare(None, end, state, [])
    assert found["a"]["x"] == 2
    np.testing.assert_array_equal(found["b"], [2, 5])


def test_wise_ft_without_an_anchor_is_refused():
    wise, params = transfer.wise_ft(), tree(1, 2, 3)
    with pytest.raises(ValueError, match=r"transfer\.anchored"):
        wise.prepare(None, params, State({}, wise.state(None, params, {}, SHAPE)), [])


def test_modules_are_no_part_of_the_anchor():
    module = Module(lambda rng, output, shape: {}, lambda params, x: x)
    method = transfer.anchored(Method(modules={"projection": module}))
    kept = method.state(None, {**tree(1, 2, 3), "projection": {"kernel": np.ones(2)}}, {}, SHAPE)
    assert set(flatten(kept)) == {"start/a/x", "start/b"}


@pytest.mark.parametrize("name", ["state", "prepare"])
def test_an_anchored_method_may_keep_nothing_else(name):
    with pytest.raises(ValueError, match="anchored: "):
        transfer.anchored(Method(**{name: lambda *args: None}))


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.7, name="first")(x)
        x = nn.relu(nn.Dense(4, name="dense")(x))
        return nn.BatchNorm(use_running_average=not train, momentum=0.99, name="second")(x)


def test_refreshed_statistics_are_the_means_over_batches():
    model = models.from_linen(Normed(), {"digit": classes(2)}, name="body")
    params, statistics = jax.tree.map(np.asarray, model.init(jax.random.key(0), jnp.zeros((1, 3))))
    rng = np.random.default_rng(0)
    domains = [
        Columns(rng.normal(size=(n, 3)).astype(np.float32) * 3 + shift, {}, {}, np.ones(n))
        for n, shift in [(12, 0), (6, 5)]
    ]
    frozen = dataclasses.replace(model, live=())  # as in a stage where nothing trains
    same, found = transfer.refresh_statistics(4).prepare(frozen, params, State(statistics), domains)
    assert same is params
    orders = [np.random.default_rng(0).permutation(n) for n in (12, 6)]
    expected = {}
    for i in range(3):
        rows = [np.resize(order, 12)[4 * i : 4 * i + 4] for order in orders]
        x = np.concatenate([one.inputs[r] for one, r in zip(domains, rows, strict=True)])
        for layer in ("first", "second"):
            for name, value in (("mean", x.mean(0)), ("var", x.var(0))):
                path = f"backbone/body/{layer}/{name}"
                expected[path] = expected.get(path, 0) + value / 3
            if layer == "first":
                body = params["backbone"]["body"]
                x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
                x = np.maximum(x @ body["dense"]["kernel"] + body["dense"]["bias"], 0)
    assert flatten(found.statistics).keys() == expected.keys()
    for path, leaf in flatten(found.statistics).items():
        np.testing.assert_allclose(leaf, expected[path], rtol=1e-3, atol=1e-4, err_msg=path)


def test_a_model_without_statistics_is_told_so():
    model = models.mlp({"digit": classes(2)}, hidden=())
    with pytest.raises(ValueError, match="no batch statistics"):
        transfer.refresh_statistics().prepare(model, {}, State({}), [])
