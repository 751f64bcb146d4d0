"""What a model does for domains: styles that are mixed, norms that each has for itself."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtl.models import Block, classes, conv_net, domain_norm, from_blocks, mix_style
from jaxtl.models.layers import Conv
from jaxtl.models.mix_style import mixed_styles, partners
from jaxtl.paths import flatten

KEY = jax.random.key(2)
SMALL = from_blocks(
    [Block("conv_0", nn.Conv(2, (3, 3))), Block("dense_0", nn.Conv(2, (1, 1)))],
    {"task": classes(3)},
)
MAPS = np.random.default_rng(3).normal(size=(6, 3, 3, 2)).astype("f") + 2


def test_mixed_maps_have_the_mixed_statistics():
    _, order, beta = jax.random.split(KEY, 3)
    found = np.float64(mixed_styles(KEY, MAPS, 0.7, 1.0, None))
    partner = np.asarray(jax.random.permutation(order, 6))
    share = np.float64(jax.random.beta(beta, 0.7, 0.7, (6, 1, 1, 1)))[:, 0, 0]
    for statistic in (np.mean, np.std):
        own = statistic(np.float64(MAPS), (1, 2))
        expected = share * own + (1 - share) * own[partner]
        np.testing.assert_allclose(statistic(found, (1, 2)), expected, rtol=1e-4)
    content = [(x - x.mean((1, 2), keepdims=True)) for x in (found, np.float64(MAPS))]
    content = [x / x.std((1, 2), keepdims=True) for x in content]
    np.testing.assert_allclose(*content, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(mixed_styles(KEY, MAPS, 0.7, 0.0, None), MAPS)


@pytest.mark.parametrize("domains", [2, 3])
def test_partners_of_other_domains(domains):
    for seed in range(5):
        partner = np.asarray(partners(jax.random.key(seed), 6, domains))
        assert sorted(partner) == list(range(6))
        assert (partner % domains != np.arange(6) % domains).all()


def test_statistics_are_constants_of_the_gradient():
    slope = jax.grad(lambda x: jnp.sum(mixed_styles(KEY, x, 0.7, 1.0, None) ** 3))(MAPS)
    mixed = mixed_styles(KEY, MAPS, 0.7, 1.0, None)
    factor = np.std(mixed, (1, 2), keepdims=True) / np.std(MAPS, (1, 2), keepdims=True)
    np.testing.assert_allclose(slope, 3 * np.float64(mixed) ** 2 * factor, rtol=1e-3)


def test_a_model_mixes_in_training_only():
    plain = SMALL
    model = mix_style(plain, after=("conv_0",), p=1.0)
    inputs = jax.random.normal(KEY, (4, 8, 8, 1))
    params, _ = plain.init(KEY, inputs)
    assert flatten(model.init(KEY, inputs)[0]).keys() == flatten(params).keys()
    for train, same in ((False, True), (True, False)):
        a, b = (
            jax.jit(lambda x, m=m, t=train: m.apply(params, {}, x, rng=KEY, train=t)[0])(inputs)
            for m in (plain, model)
        )
        assert np.array_equal(a["logits"]["task"], b["logits"]["task"]) == same
    merged, _ = model.merge(params)
    assert not merged.adapters


def test_what_mix_style_cannot_do_is_said():
    plain = SMALL
    for after, words in ((("dense_0",), "no block follows"), (("conv0",), "unknown block 'conv0'")):
        with pytest.raises(ValueError, match=words):
            mix_style(plain, after=after)
    inputs = jnp.zeros((4, 8, 8, 1))
    params, _ = plain.init(KEY, inputs)
    with pytest.raises(ValueError, match="give `apply` an rng"):
        mix_style(plain, after=("conv_0",)).apply(params, {}, inputs, train=True)
    with pytest.raises(ValueError, match="4 rows are not of 3 domains"):
        mix_style(plain, after=("conv_0",), domains=3).apply(
            params, {}, inputs, rng=KEY, train=True
        )


D = 3
PLAIN = from_blocks(
    [Block("conv", Conv(4, (3, 3), batch_norm=True), nn.relu)], {"task": classes(2)}
)
MODEL = domain_norm(PLAIN, D)


def begun():
    inputs = np.random.default_rng(0).normal(size=(4, D, 5, 5, 1)).astype("f")
    inputs = np.float32(inputs * np.array([1, 2, 5])[None, :, None, None, None] + 1)
    params, statistics = MODEL.init(KEY, inputs[:, 0])
    rng = np.random.default_rng(1)
    params, statistics = jax.tree.map(
        lambda x: x + np.abs(rng.normal(size=x.shape)).astype("f"), (params, statistics)
    )
    return inputs, params, statistics


def of_domain(d, params, statistics):
    """What a plain model of one domain reads."""
    norm = jax.tree.map(lambda x: x[d], params["backbone"]["conv"]["norm"])
    conv = {**params["backbone"]["conv"], "norm": norm}
    own = {**params, "backbone": {"conv": conv}}
    return own, jax.tree.map(lambda x: x[d], statistics)


def test_each_domain_trains_as_if_alone():
    inputs, params, statistics = begun()
    assert params["backbone"]["conv"]["norm"]["scale"].shape == (D, 4)
    assert params["backbone"]["conv"]["kernel"].shape == (3, 3, 1, 4)
    rows = inputs.reshape(-1, 5, 5, 1)
    output, after = MODEL.apply(params, statistics, rows, rng=KEY, train=True)
    logits = np.asarray(output["logits"]["task"]).reshape(4, D, 2)
    for d in range(D):
        alone, moved = PLAIN.apply(
            *of_domain(d, params, statistics), inputs[:, d], rng=KEY, train=True
        )
        np.testing.assert_allclose(logits[:, d], alone["logits"]["task"], rtol=1e-4, atol=1e-5)
        for path, leaf in flatten(moved).items():
            np.testing.assert_allclose(flatten(after)[path][d], leaf, rtol=1e-5)


def test_evaluation_uses_one_domain_or_the_mean_over_all():
    inputs, params, statistics = begun()
    each = [
        PLAIN.apply(*of_domain(d, params, statistics), inputs[:, 0])[0]["logits"]["task"]
        for d in range(D)
    ]
    for d in range(D):
        model = dataclasses.replace(MODEL, domain=d)
        found, same = model.apply(params, statistics, inputs[:, 0])
        np.testing.assert_allclose(found["logits"]["task"], each[d], rtol=1e-5, atol=1e-5)
        assert same is statistics
    found, _ = MODEL.apply(params, statistics, inputs[:, 0])
    np.testing.assert_allclose(found["logits"]["task"], np.mean(each, 0), rtol=1e-4, atol=1e-5)


def test_what_domain_norms_cannot_do_is_said():
    inputs, params, statistics = begun()
    with pytest.raises(ValueError, match="4 rows are not of 3 domains"):
        MODEL.apply(params, statistics, inputs[:, 0], rng=KEY, train=True)
    with pytest.raises(ValueError, match="cannot be cut after block 'conv'"):
        MODEL.cut("conv")
    with pytest.raises(ValueError, match="domain 3 of 3"):
        domain_norm(PLAIN, D, domain=3)
    with pytest.raises(ValueError, match="no batch statistics"):
        domain_norm(conv_net({"task": classes(2)}), 2).init(KEY, jnp.zeros((1, 8, 8, 1)))
