"""Published names of `models.resnet`."""

import re

from jaxtl.pretrained.names.convolutional import convolutional

_BLOCK = re.compile(r"stage_(\d)/block_(\d+)/(conv_(\d)|shortcut)")


def _torchvision(layer: str) -> tuple[str, str] | None:
    if layer == "stem":
        return "conv1", "bn1"
    if not (match := _BLOCK.fullmatch(layer)):
        return None
    block = f"layer{match[1]}.{match[2]}"
    if match[3] == "shortcut":
        return f"{block}.downsample.0", f"{block}.downsample.1"
    return f"{block}.conv{match[4]}", f"{block}.bn{match[4]}"


def _transformers(layer: str) -> tuple[str, str] | None:
    if layer == "stem":
        place = "resnet.embedder.embedder"
    elif match := _BLOCK.fullmatch(layer):
        place = f"resnet.encoder.stages.{int(match[1]) - 1}.layers.{match[2]}"
        place += ".shortcut" if match[3] == "shortcut" else f".layer.{int(match[4]) - 1}"
    else:
        return None
    return f"{place}.convolution", f"{place}.normalization"


_CONFIG = {
    "model_type": ("resnet",),
    "hidden_act": ("relu",),
    "downsample_in_first_stage": (False,),
    "downsample_in_bottleneck": (False,),
}

RESNET = (
    convolutional("torchvision and timm", _torchvision, "fc"),
    convolutional("transformers", _transformers, "classifier.1", _CONFIG),
)
"""Published names of `models.resnet`. Means of another kind, weights that are standardised in the
layer, and another order of colours look the same in a file: they are for its reader to know."""
