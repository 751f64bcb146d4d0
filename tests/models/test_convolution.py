"""Values and gradients are those of flax.linen; a CPU gets none of the slow operations."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtl.models.convolution import convolve, max_pool

# (input shape, options of nn.Conv, whether the CPU's program may hold a convolution)
CASES = {
    "same": ((2, 8, 9, 3), {"kernel_size": (3, 3)}, False),
    "valid": ((2, 8, 9, 3), {"kernel_size": (3, 3), "padding": "VALID"}, False),
    "strided": ((2, 9, 8, 3), {"kernel_size": (3, 3), "strides": 2}, False),
    "strided valid": (
        (2, 9, 10, 3),
        {"kernel_size": (5, 3), "strides": (2, 3), "padding": "VALID"},
        False,
    ),
    "explicit": ((2, 7, 8, 2), {"kernel_size": (3, 3), "padding": ((2, 1), (0, 3))}, False),
    "circular": ((2, 7, 8, 2), {"kernel_size": (3, 3), "padding": "CIRCULAR"}, False),
    "pointwise": ((2, 5, 4, 3), {"kernel_size": (1, 1)}, False),
    "pointwise strided": ((2, 5, 4, 3), {"kernel_size": (1, 1), "strides": 2}, False),
    "even": ((1, 6, 7, 1), {"kernel_size": (4, 2)}, False),
    "one dimension": ((2, 9, 3), {"kernel_size": (3,), "strides": 2}, False),
    "three dimensions": ((1, 5, 4, 6, 2), {"kernel_size": (3, 2, 3)}, False),
    "depthwise": ((2, 8, 9, 6), {"kernel_size": (3, 3), "feature_group_count": 6}, False),
    "depthwise strided": (
        (2, 8, 9, 6),
        {"kernel_size": (5, 5), "feature_group_count": 6, "strides": 2},
        False,
    ),
    "grouped": ((2, 6, 6, 4), {"kernel_size": (3, 3), "feature_group_count": 2}, True),
    "dilated": ((2, 9, 9, 2), {"kernel_size": (3, 3), "kernel_dilation": 2}, True),
    "large": ((1, 16, 16, 1), {"kernel_size": (8, 8), "strides": 8}, True),
}


def setting(case):
    shape, options, native = CASES[case]
    inputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    linens = nn.Conv(6, **options)
    return linens.clone(conv_general_dilated=convolve), linens, inputs, native


def random_variables(layer, inputs, lead=()):
    abstract = jax.eval_shape(layer.init, jax.random.key(0), inputs)
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: rng.normal(size=lead + leaf.shape).astype(np.float32), abstract
    )


def assert_close(ours, linens):
    # Sums of up to some hundred terms of size 1 in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=3e-5), ours, linens)


def value_and_gradients(layer, variables, inputs):
    outputs, pull = jax.vjp(layer.apply, variables, inputs)
    return outputs, pull(np.cos(np.arange(outputs.size, dtype=np.float32)).reshape(outputs.shape))


@pytest.mark.parametrize("case", CASES)
def test_convolution_is_linens_without_the_slow_operation(case):
    ours, linens, inputs, native = setting(case)
    variables = random_variables(linens, inputs)

    def compiled(layer):
        function = functools.partial(value_and_gradients, layer)
        return jax.jit(function).lower(variables, inputs).compile()

    fast, slow = compiled(ours), compiled(linens)
    assert_close(fast(variables, inputs), slow(variables, inputs))
    assert (" convolution(" in fast.as_text()) == native
    if case in ("same", "depthwise"):  # XLA makes dots of some itself; the search finds the others
        assert " convolution(" in slow.as_text()


@pytest.mark.parametrize("case", ["strided", "depthwise", "grouped"])
def test_convolution_under_vmap_over_parameters(case):
    ours, linens, inputs, _ = setting(case)
    stack = random_variables(linens, inputs, (3,))

    def stacked(layer):
        function = functools.partial(value_and_gradients, layer)
        return jax.jit(jax.vmap(function, (0, None)))(stack, inputs)

    assert_close(stacked(ours), stacked(linens))


def test_other_platforms_get_the_native_operations():
    layer, _, inputs, _ = setting("same")
    variables = jax.eval_shape(layer.init, jax.random.key(0), inputs)

    def loss(variables, inputs):
        return max_pool(layer.apply(variables, inputs)).sum()

    step = jax.jit(jax.grad(loss)).trace(variables, inputs)
    text = step.lower(lowering_platforms=("tpu",)).as_text()
    assert "stablehlo.convolution" in text and "select_and_scatter" in text
    text = step.lower(lowering_platforms=("cpu",)).as_text()
    assert "stablehlo.convolution" not in text and "select_and_scatter" not in text


@pytest.mark.parametrize("wrt", [(0,), (1,), (0, 1)])
def test_derivatives_of_any_order_and_mode_are_those_of_the_native_one(wrt):
    rng = np.random.default_rng(0)
    arguments = [0.3 * rng.normal(size=s).astype(np.float32) for s in ((2, 5, 6, 2), (3, 3, 2, 3))]
    form = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

    def energy(convolution, *arguments):
        return jnp.sum(jnp.tanh(convolution(*arguments, (1, 1), "SAME", **form)) ** 2)

    def derivatives(convolution):
        function = functools.partial(energy, convolution)
        first = jax.grad(function, wrt)
        moved = [arguments[i] for i in wrt]

        def along(*moved):
            full = list(arguments)
            for i, value in zip(wrt, moved, strict=True):
                full[i] = value
            return first(*full)

        return (
            first(*arguments),
            jax.jvp(along, moved, moved),
            jax.jacfwd(function, wrt)(*arguments),
        )

    assert_close(derivatives(convolve), derivatives(jax.lax.conv_general_dilated))


def test_a_cpu_runs_what_is_not_differentiated_as_it_is():
    layer, _, inputs, _ = setting("same")
    variables = jax.eval_shape(layer.init, jax.random.key(0), inputs)
    program = jax.jit(layer.apply).trace(variables, inputs).lower(lowering_platforms=("cpu",))
    assert "stablehlo.convolution" in program.as_text()


def test_a_window_larger_than_the_inputs_is_an_error():
    layer = nn.Conv(1, (5, 5), padding="VALID", conv_general_dilated=convolve)
    with pytest.raises(ValueError, match=r"window of \(5, 5\).*inputs of \(4, 8\)"):
        layer.init(jax.random.key(0), jnp.ones((1, 4, 8, 1)))
    with pytest.raises(ValueError, match=r"window of 2 .*inputs of \(1, 8\)"):
        max_pool(jnp.ones((1, 1, 8, 1)))


@pytest.mark.parametrize(
    ("shape", "window", "stride", "padding"),
    [
        ((2, 8, 6, 3), 2, None, 0),
        ((3, 7, 9, 2), 2, None, 0),
        ((1, 2, 3, 1), 2, None, 0),
        ((2, 7, 9, 2), 3, None, 0),
        ((2, 8, 9, 3), 3, 2, 1),
        ((2, 7, 6, 2), 3, 1, 0),
        ((2, 7, 6, 2), 2, 2, 1),
        ((1, 6, 9, 2), 2, 3, 0),
    ],
)
def test_max_pool_is_linens_with_its_choice_among_ties(shape, window, stride, padding):
    # Values 0..2: nearly every window holds its maximum several times.
    stack = jax.random.randint(jax.random.key(0), (2, *shape), 0, 3).astype(jnp.float32)
    sides, strides, pads = ((side,) * 2 for side in (window, stride or window, (padding,) * 2))

    def value_and_gradient(pool, inputs):
        outputs, pull = jax.vjp(pool, inputs)
        return outputs, pull(jnp.arange(outputs.size, dtype=jnp.float32).reshape(outputs.shape))[0]

    def ours(inputs):
        return value_and_gradient(lambda x: max_pool(x, window, stride, padding), inputs)

    def linens(inputs):
        return value_and_gradient(lambda x: nn.max_pool(x, sides, strides, pads), inputs)

    expected = jax.jit(jax.vmap(linens))(stack)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(jax.vmap(ours))(stack), expected)
    first = jax.tree.map(lambda leaf: leaf[0], expected)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(ours)(stack[0]), first)


@pytest.mark.parametrize("place", range(9))
def test_max_pool_of_a_nan_is_nan_where_it_is_differentiated_too(place):
    inputs = jnp.arange(9.0).at[place].set(jnp.nan).reshape(1, 3, 3, 1)
    outputs, _ = jax.vjp(lambda x: max_pool(x, 3, stride=1), inputs)
    assert jnp.isnan(outputs).all() and jnp.isnan(max_pool(inputs, 3, stride=1)).all()


def test_max_pool_by_hand():
    inputs = jnp.array([[1.0, 4, 0, 0], [4, 2, 0, 0]]).reshape(1, 2, 4, 1)
    outputs, pull = jax.vjp(max_pool, inputs)
    np.testing.assert_array_equal(outputs[0, :, :, 0], [[4, 0]])
    gradient = pull(jnp.array([5.0, 7.0]).reshape(outputs.shape))[0]
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[0, 5, 7, 0], [0, 0, 0, 0]])
    _, tangent = jax.jvp(max_pool, (inputs,), (inputs * 10,))
    np.testing.assert_array_equal(tangent[0, :, :, 0], [[40, 0]])


def test_pooling_compiled_for_a_cpu_scatters_nothing():
    def operations(pool):
        gradient = jax.jit(jax.grad(lambda x: (pool(x) ** 2).sum()))
        text = gradient.lower(jnp.ones((2, 8, 8, 3))).compile().as_text()
        return set(re.findall(r" ([a-z-]+)\(", text))

    slow = {"select-and-scatter", "scatter", "while"}
    assert operations(lambda x: nn.max_pool(x, (2, 2), (2, 2))) & slow
    assert not operations(max_pool) & slow
    assert not operations(lambda x: max_pool(x, 3, 2, 1)) & slow
