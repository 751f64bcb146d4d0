"""Convolutional networks in NumPy, from the arrays of a file, and models with loaded weights."""

import jax
import numpy as np

from jaxtl import paths


def convolution(x, weight, stride=1, padding="same", groups=1):
    """[n, height, width, channels] with a kernel [out, in / groups, k, k] of PyTorch.

    `padding` is a number for each side, or "same" for TensorFlow's: the output has
    ceil(size / stride) positions, and where the sum of both sides is odd, more is put after.
    """
    k = weight.shape[-1]
    pads = [(padding, padding)] * 2
    if padding == "same":
        need = [max((-(-n // stride) - 1) * stride + k - n, 0) for n in x.shape[1:3]]
        pads = [(total // 2, total - total // 2) for total in need]
    x = np.pad(x, [(0, 0), *pads, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))[:, ::stride, ::stride]
    if groups > 1:
        return np.einsum("nhwckl,ckl->nhwc", windows, weight[:, 0])
    return np.tensordot(windows, weight, ((3, 4, 5), (1, 2, 3)))


def batch_norm(x, file, name, epsilon):
    mean, var = file[f"{name}.running_mean"], file[f"{name}.running_var"]
    scale = file[f"{name}.weight"] / np.sqrt(var + epsilon)
    return (x - mean) * scale + file[f"{name}.bias"]


def abstract(model, size=64):
    """(params, state) of a model of images, as shapes."""
    images = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def wanted(model):
    """{path: shape} of all parameters and batch statistics."""
    params, state = abstract(model)
    return paths.flatten(params) | paths.flatten(state)


def run(model, leaves, images):
    """The logits of "imagenet" by weights that were read."""
    trees = [paths.nest({path: leaves[path] for path in paths.flatten(t)}) for t in abstract(model)]
    output, _ = jax.jit(model.apply)(*trees, images)
    return output["logits"]["imagenet"]
