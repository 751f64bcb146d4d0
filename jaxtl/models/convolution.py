"""Convolution and max pooling that are fast on a CPU, and the native operation elsewhere.

The gradients of XLA's CPU convolution run on one core (and inside a loop far slower), and that of
its pooling (select-and-scatter) costs more than the rest of a small network's step. Here a
convolution that is differentiated is patches and one matrix product, and pooling is a reshape and a
maximum. `jax.lax.platform_dependent` chooses when the program is compiled: values, gradients and
parameters are those of `flax.linen` on every platform.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# A larger window, such as the 16 x 16 patches of a ViT, would be hundreds of slices.
_MOST_TAPS = 49
# Functions that are made once: JAX finds a branch traced, and differentiated, by the function.
_MOST_FUNCTIONS = 256


def convolve(
    inputs: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: lax.ConvDimensionNumbers | None = None,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, for `nn.Conv(..., conv_general_dilated=convolve)`.

    On a CPU, a small channels-last window without dilation is patches and one dot where a gradient
    is asked for, and a depthwise one a sum over its taps; all else (frozen layers, evaluation) is
    `lax.conv_general_dilated` there too.

    Args:
        inputs: [batch, *size, channels] float.
        kernel: [*window, channels / feature_group_count, features] float.
        window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
            feature_group_count, precision: as `jax.lax.conv_general_dilated` takes them.

    Returns:
        [batch, *output size, features].

    Raises:
        ValueError: the window does not fit into the padded inputs.
    """
    window, rank = kernel.shape[:-2], inputs.ndim
    layout = lax.conv_dimension_numbers(inputs.shape, kernel.shape, dimension_numbers)
    depthwise = feature_group_count == inputs.shape[-1] == kernel.shape[-1]
    strides = tuple(window_strides)
    if not isinstance(padding, str):
        padding = tuple((int(low), int(high)) for low, high in padding)
    dilation = [None if each is None else tuple(each) for each in (lhs_dilation, rhs_dilation)]
    native = _native_convolution(
        strides, padding, *dilation, dimension_numbers, feature_group_count, precision
    )
    if (
        layout.lhs_spec == layout.out_spec == (0, rank - 1, *range(1, rank - 1))
        and layout.rhs_spec == (rank - 1, rank - 2, *range(rank - 2))
        and {*(lhs_dilation or ()), *(rhs_dilation or ())} <= {1}
        and math.prod(window) <= _MOST_TAPS
        and (feature_group_count == 1 or depthwise)
    ):
        pads = tuple(map(tuple, _pads(inputs.shape[1:-1], window, strides, padding)))
        if depthwise and feature_group_count > 1:
            tap_sum = _tap_sum(window, strides, pads)
            return lax.platform_dependent(inputs, kernel, cpu=tap_sum, default=native)
        dot = _patches_dot(window, strides, pads, precision)
        if math.prod(window) == 1:
            return lax.platform_dependent(inputs, kernel, cpu=dot, default=native)
        return _differentiated_as(dot, native)(inputs, kernel)
    return native(inputs, kernel)


@functools.lru_cache(_MOST_FUNCTIONS)
def _native_convolution(*how: Any) -> Callable:
    """(inputs, kernel) -> outputs by the operation itself.

    Args:
        how: further arguments of `lax.conv_general_dilated`, in order; the precision last.
    """
    *how, precision = how

    def native(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(inputs, kernel, *how, precision=precision)

    return native


@functools.lru_cache(_MOST_FUNCTIONS)
def _patches_dot(
    window: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    precision: lax.PrecisionLike,
) -> Callable:
    """(inputs, kernel) -> outputs as one product of all patches."""

    def dot(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        patches = jnp.concatenate(_taps(inputs, window, strides, pads), axis=-1)
        weights = kernel.reshape(-1, kernel.shape[-1])
        outputs = jnp.dot(patches.reshape(-1, len(weights)), weights, precision=precision)
        return outputs.reshape(*patches.shape[:-1], -1)

    return dot


@functools.lru_cache(_MOST_FUNCTIONS)
def _tap_sum(
    window: Sequence[int], strides: Sequence[int], pads: Sequence[tuple[int, int]]
) -> Callable:
    """(inputs, kernel) -> outputs of a depthwise convolution, tap by tap."""

    def tap_sum(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        weights = kernel.reshape(-1, *(1,) * (inputs.ndim - 1), kernel.shape[-1])
        taps = _taps(inputs, window, strides, pads)
        return sum(tap * weight for tap, weight in zip(taps, weights, strict=True))

    return tap_sum


@functools.lru_cache(_MOST_FUNCTIONS)
def _differentiated_as(cpu: Callable, native: Callable) -> Callable:
    """`native`, but values and derivatives by `cpu` on one, where an argument is differentiated.

    Args:
        cpu, native: arrays -> outputs, equal functions.
    """
    function = jax.custom_jvp(native)

    @functools.partial(function.defjvp, symbolic_zeros=True)
    def derivative(primals, tangents):
        moving = [not isinstance(t, jax.custom_derivatives.SymbolicZero) for t in tangents]

        def along(*moved):
            moved = iter(moved)
            arguments = [next(moved) if m else p for p, m in zip(primals, moving, strict=True)]
            return lax.platform_dependent(*arguments, cpu=cpu, default=native)

        return jax.jvp(along, *(list(itertools.compress(x, moving)) for x in (primals, tangents)))

    return function


def _pads(
    size: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
) -> Sequence[tuple[int, int]]:
    """(low, high) padding of each axis; ValueError if the window does not fit."""
    pads = padding
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(size, window, strides, padding)
    if any(n + sum(pad) < width for n, pad, width in zip(size, pads, window, strict=True)):
        raise ValueError(
            f"a window of {tuple(window)} does not fit into inputs of {tuple(size)} with padding "
            f"{tuple(pads)}: use larger inputs or padding 'SAME'."
        )
    return pads


def _taps(
    inputs: jax.Array,
    window: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    fill: float = 0.0,
) -> list[jax.Array]:
    """For each offset in the window, the inputs it meets: [batch, *output size, channels]."""
    edges = [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)]
    padded = lax.pad(inputs, jnp.asarray(fill, inputs.dtype), edges)
    reach = [n - width + 1 for n, width in zip(padded.shape[1:-1], window, strict=True)]
    return [
        padded[
            (
                slice(None),
                *(
                    slice(start, start + n, stride)
                    for start, n, stride in zip(offset, reach, strides, strict=True)
                ),
            )
        ]
        for offset in itertools.product(*map(range, window))
    ]


def max_pool(
    inputs: jax.Array, window: int = 2, stride: int | None = None, padding: int = 0
) -> jax.Array:
    """The maximum of each window; the gradient goes to its first maximum, as in `nn.max_pool`.

    Args:
        inputs: [batch, height, width, channels] float.
        window: its side; rows and columns that fill no window are left out.
        stride: between windows, their side if None.
        padding: of every side, with -inf.

    Returns:
        [batch, rows, columns, channels] with rows = (height + 2 padding - window) // stride + 1.

    Raises:
        ValueError: the inputs are smaller than the window.
    """
    if min(inputs.shape[1:3]) + 2 * padding < window:
        raise ValueError(
            f"a pooling window of {window} does not fit into inputs of {inputs.shape[1:3]}: "
            "use larger inputs or convolutions with padding 'SAME'."
        )
    stride = stride or window

    native = _native_pooling(window, stride, padding)
    if stride != window or padding:
        return _differentiated_as(_overlapping(window, stride, padding), native)(inputs)
    return lax.platform_dependent(inputs, cpu=_reshaped(window), default=native)


@functools.lru_cache(_MOST_FUNCTIONS)
def _native_pooling(window: int, stride: int, padding: int) -> Callable:
    """inputs -> maxima by the operation itself."""

    def native(inputs: jax.Array) -> jax.Array:
        sides, strides = (1, window, window, 1), (1, stride, stride, 1)
        edges = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
        return lax.reduce_window(inputs, -jnp.inf, lax.max, sides, strides, edges)

    return native


@functools.lru_cache(_MOST_FUNCTIONS)
def _overlapping(window: int, stride: int, padding: int) -> Callable:
    """inputs -> maxima of windows that share pixels, or lie on a border."""

    def overlapping(inputs: jax.Array) -> jax.Array:
        # Along the rows first, so that of equal maxima the first in reading order is taken.
        for axis in ((0, 1), (1, 0)):
            sides = [window if along else 1 for along in axis]
            strides = [stride if along else 1 for along in axis]
            edges = [(padding * along, padding * along) for along in axis]
            inputs, *rest = _taps(inputs, sides, strides, edges, -jnp.inf)
            for tap in rest:  # a later NaN counts too
                inputs = jnp.where((tap > inputs) | jnp.isnan(tap), tap, inputs)
        return inputs

    return overlapping


@functools.lru_cache(_MOST_FUNCTIONS)
def _reshaped(window: int) -> Callable:
    """inputs -> maxima of windows side by side."""

    def reshaped(inputs: jax.Array) -> jax.Array:
        n, height, width, channels = inputs.shape
        rows, columns = height // window, width // window
        cropped = inputs[:, : rows * window, : columns * window]
        return _maximum(cropped.reshape(n, rows, window, columns, window, channels))

    return reshaped


@jax.custom_jvp
def _maximum(windows: jax.Array) -> jax.Array:
    """[batch, rows, window, columns, window, channels] -> [batch, rows, columns, channels]."""
    return windows.max((2, 4))


@_maximum.defjvp
def _maximum_jvp(primals, tangents):
    (windows,), (tangent,) = primals, tangents
    maximum, side = _maximum(windows), windows.shape[2]
    taps = np.arange(side**2, dtype=np.int16)
    # A blank region behind a ReLU with a positive bias ties, so the first has to be found; with
    # selects, because a reduction that finds it makes the gradient four times as slow.
    first = jnp.full(maximum.shape, taps[-1])
    for tap in taps[-2::-1]:
        first = jnp.where(windows[:, :, tap // side, :, tap % side] == maximum, tap, first)
    chosen = first[:, :, None, :, None] == taps.reshape(1, 1, side, 1, side, 1)
    return maximum, jnp.where(chosen, tangent, 0).sum((2, 4))
