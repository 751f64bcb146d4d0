"""Published names of `models.efficientnet_lite`."""

import functools
import re

from jaxtl.models.efficientnet_lite import stage_depths
from jaxtl.pretrained.names.convolutional import convolutional
from jaxtl.pretrained.names.scheme import Scheme

_BLOCK = re.compile(r"stage_(\d)/block_(\d+)/(expand|depthwise|project)")
_LAYERS = ("expand", "depthwise", "project")


@functools.cache  # so that equal variants have equal schemes
def efficientnet_lite(variant: str) -> tuple[Scheme, ...]:
    """Names of the first port to PyTorch, which numbers the blocks throughout, and of timm.

    The weights of both come from TensorFlow; timm's are those called `tf_efficientnet_lite*`. Its
    `efficientnet_lite*`, trained with other padding and other pixels, do not fit this model, which
    their names do not tell.

    Args:
        variant: "lite0" to "lite4".

    Raises:
        ValueError: unknown variant.
    """
    depths = stage_depths(variant)

    def port(layer: str) -> tuple[str, str] | None:
        if layer in ("stem", "top"):
            return ("_conv_stem", "_bn0") if layer == "stem" else ("_conv_head", "_bn1")
        if not (match := _BLOCK.fullmatch(layer)):
            return None
        number = sum(depths[: int(match[1]) - 1]) + int(match[2])
        position = _LAYERS.index(match[3])
        return f"_blocks.{number}._{match[3]}_conv", f"_blocks.{number}._bn{position}"

    return (
        convolutional("EfficientNet-Lite-PyTorch", port, "_fc"),
        convolutional("timm", _timm, "classifier"),
    )


def _timm(layer: str) -> tuple[str, str] | None:
    if layer in ("stem", "top"):
        return ("conv_stem", "bn1") if layer == "stem" else ("conv_head", "bn2")
    if not (match := _BLOCK.fullmatch(layer)):
        return None
    block = f"blocks.{int(match[1]) - 1}.{match[2]}"
    # The first stage does not expand, and its projection is called as an expansion is elsewhere.
    layers = ("depthwise", "project") if match[1] == "1" else _LAYERS
    names = ("conv_dw", "conv_pw") if match[1] == "1" else ("conv_pw", "conv_dw", "conv_pwl")
    position = layers.index(match[3])
    return f"{block}.{names[position]}", f"{block}.bn{position + 1}"
