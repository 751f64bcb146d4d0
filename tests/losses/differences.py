"""Derivatives of NumPy references by central differences in float64."""

import numpy as np


def slopes(function, *arrays, step=1e-5):
    """The gradients of function(*arrays) -> float, one for each array."""
    arrays = [np.array(x, float) for x in arrays]
    gradients = []
    for x in arrays:
        gradient = np.zeros_like(x)
        for i in np.ndindex(*x.shape):
            kept, values = x[i], []
            for x[i] in (kept + step, kept - step):
                values.append(function(*arrays))
            x[i] = kept
            gradient[i] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


def assert_derivatives(loss, reference, *arrays, rtol=2e-4, atol=2e-6):
    """Value and gradients of a float32 loss are those of a float64 reference."""
    import jax

    value, gradients = jax.jit(jax.value_and_grad(loss, tuple(range(len(arrays)))))(*arrays)
    assert value.shape == () and value.dtype == np.float32
    np.testing.assert_allclose(value, reference(*arrays), rtol=rtol, atol=atol)
    for actual, expected in zip(gradients, slopes(reference, *arrays), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=10 * rtol, atol=10 * atol)
