"""Adapters of kernels against the papers' formulas in NumPy: values, gradients, merging."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_facts import parameter_count
from tiny_transformers import (
    adapter_of,
    chain,
    compiled,
    drawn,
    moved,
    stacked,
    target,
    values_and_slopes,
    vectors,
)

from jaxtl import paths
from jaxtl.models import adapters, classes

ALL = ("backbone/.*/kernel",)
X = vectors()


def low_rank(scale):
    return lambda w, b, own: (w + scale * own["a"] @ own["b"], b)


def principal(w, b, own):
    return w + own["a"] @ own["b"] - own["start_a"] @ own["start_b"], b


def directions(w, b, own, norms=None):
    v = w + 3 * own["a"] @ own["b"]
    return v * own["magnitude"] / (np.sqrt((v**2).sum(0)) if norms is None else norms), b


def triplets(w, b, own):
    return w + 3 * own["p"] @ np.diag(own["values"]) @ own["q"], b


def vectors_of(w, b, own):
    down, up = own["down"][: w.shape[0]], own["up"][:, : w.shape[1]]
    return w + down @ np.diag(own["d"]) @ up @ np.diag(own["b"]), b


def rescaled(w, b, own):
    w = w * own.get("inputs", np.ones(len(w)))[:, None]
    return w * own.get("outputs", np.ones(len(b))), b * own.get("outputs", np.ones(len(b)))


@dataclasses.dataclass(frozen=True)
class Row:
    """An adapter of the chain 5 -> 7 -> 6.

    Attributes:
        build: model -> adapted model.
        formula: (W, bias, leaves of the layer and shared ones) -> (W, bias), in NumPy.
        count: number of parameters.
    """

    build: object
    formula: object
    count: int


SUM = 5 + 7 + 7 + 6
ROWS = {
    "lora": Row(lambda m: adapters.lora(m, ALL, 2, 6.0), low_rank(3.0), 2 * SUM),
    "pissa": Row(lambda m: adapters.pissa(m, ALL, 2), principal, 2 * 2 * SUM),
    "dora": Row(lambda m: adapters.dora(m, ALL, 2, 6.0), directions, 2 * SUM + 7 + 6),
    "adalora": Row(lambda m: adapters.adalora(m, ALL, 2, 6.0), triplets, 2 * (SUM + 2)),
    "vera": Row(lambda m: adapters.vera(m, ALL, 9), vectors_of, 9 * (7 + 7) + 2 * 9 + 7 + 6),
    "ia3": Row(
        lambda m: adapters.ia3(m, ("backbone/first/kernel",), ("backbone/second/kernel",)),
        rescaled,
        7 + 7,
    ),
}


@functools.cache
def base():
    return drawn(chain(), X)[0]


def network(params, name, formula):
    """Logits of the adapted chain, in float64 NumPy."""
    flat = {path: np.float64(leaf) for path, leaf in paths.flatten(params).items()}
    x = np.float64(X)
    for block, activation in (("first", lambda x: np.maximum(x, 0)), ("second", np.tanh)):
        own = {
            path.rsplit("/", 1)[1]: leaf
            for path, leaf in flat.items()
            if path.startswith((f"{name}/backbone/{block}/", f"{name}/shared/"))
        }
        w, b = formula(flat[f"backbone/{block}/kernel"], flat[f"backbone/{block}/bias"], own)
        x = activation(x @ w + b)
    return x @ flat["heads/target/kernel"] + flat["heads/target/bias"]


@functools.cache
def computed(name):
    """Everything that the tests look at, in one program."""
    model, row = chain(), ROWS[name]
    tuned = row.build(model)
    own = adapter_of(tuned, name, X)
    if name == "dora":  # what `after_loading` does, tested by itself
        for block in ("first", "second"):
            norms = np.linalg.norm(base()["backbone"][block]["kernel"], axis=0)
            own["backbone"][block]["magnitude"] = norms
    params = {**base(), name: moved(own)}
    direction = np.random.default_rng(3).normal(size=(len(X), 3)).astype(np.float32)
    both = stacked({name: own}, {name: params[name]})

    def everything(both, params):
        first, rest = tuned.cut("first")
        hidden = first.apply(params, {}, X)[0]["features"]
        _, merged = tuned.merge(params)
        bare = jax.tree.map(lambda *leaves: jnp.stack(leaves), base(), merged)
        (begin, changed), slopes = values_and_slopes(tuned, base(), both, X, direction)
        plain, folded = jax.vmap(lambda params: target(model, params, X))(bare)
        narrow = dataclasses.replace(tuned, dtype=jnp.bfloat16)
        return {
            "base": plain,
            "begin": begin,
            "moved": changed,
            "merged": folded,
            "narrow": target(narrow, params, X),
            "parts": target(rest, params, hidden),
            "back": {} if name == "dora" else adapters.unmerge(tuned, merged, params[name]),
            "gradient": jax.tree.map(lambda leaf: leaf[1], slopes),
        }

    return tuned, own, params, direction, compiled(everything, both, params)


@pytest.mark.parametrize("name", ROWS)
def test_values(name):
    tuned, own, params, _, found = computed(name)
    assert parameter_count(own) == ROWS[name].count
    np.testing.assert_allclose(found["begin"], found["base"], rtol=1e-5, atol=1e-6)
    expected = network(params, name, ROWS[name].formula)
    assert np.abs(expected - found["base"]).max() > 0.03
    np.testing.assert_allclose(found["moved"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["parts"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["merged"], expected, rtol=1e-5, atol=1e-5)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found["narrow"], expected, atol=0.05 * scale)
    model, merged = tuned.merge(params)
    assert model.blocks == ("first", "second") and set(merged) == {"backbone", "heads"}


@pytest.mark.parametrize("name", sorted(ROWS.keys() - {"dora"}))
def test_unmerged(name):
    _, _, params, _, found = computed(name)
    for path, leaf in paths.flatten(params).items():
        back = paths.flatten(found["back"])[path]
        np.testing.assert_allclose(back, leaf, rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("name", ROWS)
def test_gradients(name):
    _, _, params, direction, found = computed(name)
    formula, flat = ROWS[name].formula, paths.flatten(params)
    if name == "dora":  # the norms are constants of the backward pass
        norms = {}
        for block in ("first", "second"):
            own = params[name]["backbone"][block]
            v = base()["backbone"][block]["kernel"] + 3 * own["a"] @ own["b"]
            norms[v.shape] = np.linalg.norm(np.float64(v), axis=0)

        def formula(w, b, own):
            return directions(w, b, own, norms[w.shape])

    rng = np.random.default_rng(5)
    for path in sorted(flat):
        if path.startswith(f"{name}/"):
            along = rng.normal(size=flat[path].shape)
            ends = [
                network(paths.nest({**flat, path: flat[path] + h * along}), name, formula)
                for h in (1e-6, -1e-6)
            ]
            slope = np.sum(direction * (ends[0] - ends[1])) / 2e-6
            ours = np.sum(paths.flatten(found["gradient"])[path] * along)
            np.testing.assert_allclose(ours, slope, rtol=1e-3, atol=1e-4, err_msg=path)


def test_initial_values():
    own = computed("lora")[1]
    a, b = own["backbone"]["first"]["a"], own["backbone"]["first"]["b"]
    assert a.shape == (5, 2) and not np.any(b) and 0.2 < np.abs(a).max() <= 1 / math.sqrt(5)
    only = adapters.lora(chain(), ("backbone/second/kernel",), 2)
    again = adapter_of(only, "lora", X)["backbone"]
    assert set(again) == {"second"}  # the value depends on the rng and on its path only
    np.testing.assert_array_equal(again["second"]["a"], own["backbone"]["second"]["a"])
    vera = computed("vera")[1]
    assert vera["shared"]["down"].shape == (7, 9) and vera["shared"]["up"].shape == (9, 7)
    assert np.all(vera["backbone"]["first"]["d"] == np.float32(0.1))
    assert 0.8 < np.abs(vera["shared"]["down"]).max() <= math.sqrt(6 / 7)


def test_rank_stabilised_scale():
    tuned, own = adapters.rslora(chain(), ALL, 2, 6.0), moved(computed("lora")[1])
    merged = tuned.merge({**base(), "lora": own})[1]["backbone"]["second"]["kernel"]
    expected, _ = low_rank(6 / math.sqrt(2))(
        base()["backbone"]["second"]["kernel"], None, own["backbone"]["second"]
    )
    np.testing.assert_allclose(merged, expected, rtol=1e-5, atol=1e-6)


def test_gradient_of_the_start_reaches_b_only():
    tuned = ROWS["lora"].build(chain())
    params = {**base(), "lora": computed("lora")[1]}
    grads = compiled(jax.grad(lambda p: jnp.sum(target(tuned, p, X) ** 2)), params)["lora"]
    for own in grads["backbone"].values():
        assert not np.any(own["a"]) and np.any(own["b"])


def test_beside_plain_layers_no_kernel_is_made():
    def shapes(name):
        tuned, _, params, *_ = computed(name)
        jaxpr = jax.make_jaxpr(lambda p: target(tuned, p, X))(params)
        return {var.aval.shape for eqn in jaxpr.eqns for var in eqn.outvars}

    for name in ("lora", "pissa", "adalora", "vera"):
        assert not shapes(name) & {(5, 7), (7, 6)}, name
    assert {(5, 7), (7, 6)} <= shapes("dora") & shapes("ia3")


def test_after_loading():
    for build, name in ((adapters.pissa, "pissa"), (adapters.dora, "dora")):
        tuned = build(chain(), ALL, 2)
        adapter = tuned.adapters[-1]
        params = {**base(), name: dict(computed(name)[1])}
        params[name]["backbone"] = jax.tree.map(np.copy, params[name]["backbone"])
        for own in params[name]["backbone"].values():
            own.update({leaf: own[leaf] + 1 for leaf in own.keys() - {"a", "b"}})
        new = adapter.after_loading(params)
        for block in ("first", "second"):
            own, w = new[name]["backbone"][block], np.float64(base()["backbone"][block]["kernel"])
            if name == "dora":
                np.testing.assert_allclose(own["magnitude"] ** 2, (w**2).sum(0), rtol=1e-5)
                np.testing.assert_array_equal(own["a"], params[name]["backbone"][block]["a"])
            else:
                # The best approximation of rank 2 leaves what the eigenvalues say.
                left = np.linalg.eigvalsh(w.T @ w)[:-2].sum()
                residual = ((w - own["a"] @ own["b"]) ** 2).sum()
                np.testing.assert_allclose(residual, left, rtol=1e-4)
                np.testing.assert_allclose(own["a"].T @ own["a"], own["b"] @ own["b"].T, atol=1e-5)
        np.testing.assert_array_equal(
            new["backbone"]["first"]["kernel"], base()["backbone"]["first"]["kernel"]
        )
        begin = compiled(functools.partial(target, tuned), new, X)
        np.testing.assert_allclose(begin, computed(name)[-1]["base"], rtol=1e-5, atol=1e-6)
        changed = {
            p for p, leaf in paths.flatten(new).items() if leaf is not paths.flatten(params)[p]
        }
        assert paths.select(adapter.solves, paths.flatten(new)) == changed


@pytest.mark.parametrize(
    "builds",
    [
        ("lora", "pissa"),
        ("ia3", "lora"),
        ("lora", "ia3"),
        ("lora", "dora"),
        ("dora", "lora"),
        ("dora", "ia3"),
    ],
)
def test_stacked_adapters_merge_from_the_outside(builds):
    model = chain()
    for name in builds:
        model = ROWS[name].build(model)
    params = dict(base())
    for i, name in enumerate(builds):
        params[name] = moved(computed(name)[1], seed=i)

    def both(params):
        inner, merged = model.merge(params)
        bare, rest = inner.merge(merged)
        assert set(merged) == {"backbone", "heads", builds[0]}
        assert set(rest) == {"backbone", "heads"}
        return target(model, params, X), target(inner, merged, X), target(bare, rest, X)

    whole, once, twice = compiled(both, params)
    np.testing.assert_allclose(once, whole, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(twice, whole, rtol=1e-5, atol=1e-5)
    for name in builds:  # each has an effect
        less = {**params, name: computed(name)[1]}
        assert np.abs(compiled(functools.partial(target, model), less, X) - whole).max() > 1e-2


def test_many_adapters_at_once():
    tuned, own, *_ = computed("lora")
    several = [{"lora": moved(own, seed=i), "heads": moved(base()["heads"], i)} for i in range(3)]
    bare = {"backbone": base()["backbone"]}
    run = functools.partial(adapters.apply_stacked, tuned)
    together = compiled(lambda b, s: run(b, {}, s, X), bare, stacked(*several))
    one = jax.jit(functools.partial(target, tuned))
    for i, each in enumerate(several):
        expected = one({**bare, **each}, X)
        np.testing.assert_allclose(together["logits"]["target"][i], expected, rtol=1e-5, atol=1e-6)
    assert together["features"].shape == (3, len(X), 6)
    jaxpr = jax.make_jaxpr(lambda b, s: run(b, {}, s, X))(bare, stacked(*several))
    assert not [v for e in jaxpr.eqns for v in e.outvars if v.aval.shape[-2:] in ((5, 7), (7, 6))]


def test_other_functions_of_models_apply():
    tuned, _, params, _, found = computed("lora")
    seen = {}

    def tap(path, layer, call, *inputs, **options):
        outputs = call(*inputs, **options)
        seen[path] = outputs
        return outputs

    tapped = dataclasses.replace(tuned, around=(tap,))
    tapped.apply(params, {}, X)
    flat = paths.flatten(params)
    a, b = (flat[f"lora/backbone/first/{leaf}"] for leaf in "ab")
    first = X @ flat["backbone/first/kernel"] + flat["backbone/first/bias"] + 3 * X @ a @ b
    np.testing.assert_allclose(seen["backbone/first"], first, rtol=1e-4, atol=1e-5)

    other = dataclasses.replace(tuned, heads={"other": classes(2)})
    abstract, _ = jax.eval_shape(other.init, jax.random.key(0), X)
    assert set(abstract["heads"]) == {"other"} and "lora" in abstract
    base, merged = other.merge(params)
    assert set(base.heads) == {"other"}
    taken_out = paths.flatten(adapters.unmerge(other, merged, params["lora"]))
    for path, leaf in paths.flatten(params).items():
        np.testing.assert_allclose(taken_out[path], leaf, rtol=1e-5, atol=1e-6)
    inside = ROWS["lora"].build(dataclasses.replace(chain(), dtype=jnp.bfloat16))
    narrow = compiled(functools.partial(target, inside), params, X)
    np.testing.assert_allclose(narrow, found["moved"], atol=0.05 * np.abs(found["moved"]).max())
