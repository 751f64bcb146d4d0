"""ResNet in NumPy by torchvision's names, and the model with the same arrays."""

import numpy as np
import pytest
from plain_network import batch_norm, convolution, run, wanted
from safetensors.numpy import save_file

from jaxtl import models, pretrained

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}


def published(variant):
    """Random arrays with torchvision's names and shapes."""
    rng, file = np.random.default_rng(0), {}
    bottleneck = variant == "resnet50"

    def layer(conv, norm, features, channels, k):
        scale = np.float32(1 / np.sqrt(channels * k * k))
        kernel = rng.standard_normal((features, channels, k, k), np.float32)
        file[f"{conv}.weight"] = kernel * scale
        file[f"{norm}.weight"] = 0.5 + rng.random(features, np.float32)
        file[f"{norm}.bias"] = rng.standard_normal(features, np.float32)
        file[f"{norm}.running_mean"] = rng.standard_normal(features, np.float32)
        file[f"{norm}.running_var"] = 0.5 + rng.random(features, np.float32)
        file[f"{norm}.num_batches_tracked"] = np.array(7)

    layer("conv1", "bn1", 64, 3, 7)
    channels = 64
    for stage, depth in enumerate(DEPTHS[variant]):
        inner = 64 * 2**stage
        outer = 4 * inner if bottleneck else inner
        for i in range(depth):
            block = f"layer{stage + 1}.{i}."
            if bottleneck:
                layer(f"{block}conv1", f"{block}bn1", inner, channels, 1)
                layer(f"{block}conv2", f"{block}bn2", inner, inner, 3)
                layer(f"{block}conv3", f"{block}bn3", outer, inner, 1)
            else:
                layer(f"{block}conv1", f"{block}bn1", inner, channels, 3)
                layer(f"{block}conv2", f"{block}bn2", inner, inner, 3)
            if channels != outer:
                layer(f"{block}downsample.0", f"{block}downsample.1", outer, channels, 1)
            channels = outer
    file["fc.weight"] = rng.standard_normal((1000, channels), np.float32)
    file["fc.bias"] = rng.standard_normal(1000, np.float32)
    return file


def reference(file, images):
    """Torchvision's network, v1.5, on images in [0, 1]."""

    def layer(x, conv, norm, stride=1):
        weight = file[f"{conv}.weight"]
        return batch_norm(
            convolution(x, weight, stride, weight.shape[-1] // 2), file, norm, epsilon=1e-5
        )

    def relu(x):
        return np.maximum(x, 0)

    x = (images - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x = relu(layer(x, "conv1", "bn1", 2))
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # zeros are as good as -inf behind a ReLU
    x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2].max((4, 5))
    blocks = sorted({name[: len("layer1.0")] for name in file if name.startswith("layer")})
    for block in blocks:
        stride = 2 if block.endswith(".0") and block != "layer1.0" else 1
        if f"{block}.conv3.weight" in file:
            hidden = relu(layer(x, f"{block}.conv1", f"{block}.bn1"))
            hidden = relu(layer(hidden, f"{block}.conv2", f"{block}.bn2", stride))
            hidden = layer(hidden, f"{block}.conv3", f"{block}.bn3")
        else:
            hidden = relu(layer(x, f"{block}.conv1", f"{block}.bn1", stride))
            hidden = layer(hidden, f"{block}.conv2", f"{block}.bn2")
        if f"{block}.downsample.0.weight" in file:
            x = layer(x, f"{block}.downsample.0", f"{block}.downsample.1", stride)
        x = relu(x + hidden)
    return x.mean((1, 2)) @ file["fc.weight"].T + file["fc.bias"]


@pytest.mark.parametrize("variant", ["resnet18", "resnet50"])
def test_logits_are_those_of_a_plain_implementation(tmp_path, variant):
    file = published(variant)
    save_file(file, tmp_path / "a.safetensors")
    model = models.resnet(variant, {"imagenet": models.classes(1000)})
    weights = pretrained.weights(tmp_path / "a.safetensors", pretrained.RESNET, head="imagenet")
    leaves, report = weights.read(wanted(model))
    assert report.endswith("unused in the file (0): none")
    images = np.random.default_rng(1).random((2, 45, 38, 3))
    expected = reference(file, images)
    logits = run(model, leaves, images.astype(np.float32))
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
