import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtl.losses import supervised
from jaxtl.plan import Head
from jaxtl.plan.batch import make_batch

B, D = 6, 3
HEADS = {
    "class": Head(4, optax.softmax_cross_entropy_with_integer_labels),
    "number": Head(2, optax.squared_error, label_shape=(2,), integer=False),
    "absent": Head(5, optax.softmax_cross_entropy_with_integer_labels),
}


def draw(seed=0):
    rng = np.random.default_rng(seed)
    logits = {name: rng.normal(size=(B, D, head.size)).astype("f") for name, head in HEADS.items()}
    labels = {"class": rng.integers(0, 4, (B, D)), "number": rng.normal(size=(B, D, 2)).astype("f")}
    weights = {name: rng.uniform(0.1, 2, (B, D)).astype("f") for name in labels}
    for name, missing in (("class", -1), ("number", np.nan)):
        hidden = rng.random((B, D)) < 0.3
        weights[name][hidden] = 0
        labels[name][hidden] = missing
    return logits, make_batch(logits, labels, weights)


def loops(logits, batch, lambdas):
    """The objective in float64, and its gradient with respect to the logits."""
    total, gradient = 0.0, {name: np.zeros(z.shape) for name, z in logits.items()}
    for name in batch.labels:
        for d in range(D):
            for i in range(B):
                w = float(batch.weights[name][i, d]) * lambdas.get(name, 1.0) / B
                z, y = logits[name][i, d].astype(float), batch.labels[name][i, d]
                if w == 0:
                    continue
                if name == "class":
                    p = np.exp(z) / np.exp(z).sum()
                    total += w * -np.log(p[y])
                    gradient[name][i, d] = w * (p - np.eye(4)[y])
                else:
                    total += w * np.mean((z - y) ** 2)
                    gradient[name][i, d] = w * (z - y)  # 2 / size, with size 2
    return total, gradient


@pytest.mark.parametrize("lambdas", [{}, {"class": 0.3}, {"class": 2.0, "number": 0.0}])
def test_value_and_gradient_are_those_of_a_loop(lambdas):
    logits, batch = draw()
    expected, gradient = loops(logits, batch, lambdas)
    objective = jax.jit(lambda z: supervised(HEADS, z, batch, lambdas))
    (value, terms), actual = jax.value_and_grad(objective, has_aux=True)(logits)
    assert value.shape == () and value == pytest.approx(expected, rel=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), actual, gradient
    )
    assert terms.keys() == {"class_loss", "number_loss"}
    mixed = sum(lambdas.get(name, 1.0) * terms[f"{name}_loss"] for name in ("class", "number"))
    assert mixed == pytest.approx(expected, rel=1e-5)


def test_hidden_labels_leave_exactly_no_gradient():
    logits, batch = draw()
    gradient = jax.grad(lambda z: supervised(HEADS, z, batch)[0])(logits)
    for name, weights in batch.weights.items():
        assert (weights == 0).any()
        assert np.all(np.asarray(gradient[name])[weights == 0] == 0)
        assert np.all(np.asarray(gradient[name])[weights > 0] != 0)
    assert not gradient["absent"].any()


def test_mean_over_micro_batches_is_the_whole():
    logits, batch = draw()
    whole, terms = supervised(HEADS, logits, batch)
    parts = [
        supervised(HEADS, *jax.tree.map(lambda x, i=i: x[i : i + 2], (logits, batch)))
        for i in range(0, B, 2)
    ]
    value, averaged = jax.tree.map(lambda *x: sum(x) / 3, *parts)
    np.testing.assert_allclose(value, whole, rtol=1e-6)
    np.testing.assert_allclose(averaged["number_loss"], terms["number_loss"], rtol=1e-6)


def test_lambdas_may_be_learned():
    logits, batch = draw()
    slope = jax.grad(lambda x: supervised(HEADS, logits, batch, {"number": x})[0])(jnp.array(0.7))
    np.testing.assert_allclose(slope, supervised(HEADS, logits, batch)[1]["number_loss"], rtol=1e-6)


def test_lambda_of_no_head_names_the_closest():
    with pytest.raises(ValueError, match=r"unknown head 'clas'. Did you mean 'class'\?"):
        supervised(HEADS, *draw(), {"clas": 1.0})


def test_bfloat16_logits_are_summed_in_float32():
    logits, batch = draw()
    rounded = jax.tree.map(lambda z: jnp.asarray(z, jnp.bfloat16), logits)
    value, _ = supervised(HEADS, rounded, batch)
    exact, _ = supervised(HEADS, jax.tree.map(lambda z: z.astype(jnp.float32), rounded), batch)
    assert value.dtype == jnp.float32 and value == exact
