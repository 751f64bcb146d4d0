"""One feature of a TFDS dataset as an array: what kind it is, and what its values become."""

import io
from typing import Any

import numpy as np

from jaxtl.data.sources import image_files
from jaxtl.data.steps import images


def leaf_features(features: Any, prefix: str = "") -> dict[str, Any]:
    """{path: feature} of all leaves of a FeaturesDict."""
    import tensorflow_datasets as tfds

    leaves = {}
    for key, feature in features.items():
        path = f"{prefix}{key}"
        is_dict = isinstance(feature, tfds.features.FeaturesDict)
        leaves |= leaf_features(feature, f"{path}/") if is_dict else {path: feature}
    return leaves


def shape_of(feature: Any, size: tuple[int, int] | None) -> tuple[int | None, ...]:
    """Shape of one example, None where it is not known."""
    if kind_of(feature) == "image" and size is not None:
        return (*size, feature.shape[-1])
    return tuple(feature.shape)


def dtype_of(feature: Any) -> np.dtype:
    """What `column_of` makes of numbers and images."""
    if kind_of(feature) == "image":
        return np.dtype(np.uint8)
    whole = np.issubdtype(feature.np_dtype, np.integer) and feature.np_dtype != np.uint8
    return np.dtype(np.int32 if whole or is_class(feature) else np.float32)


def kind_of(feature: Any) -> str:
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.Image):
        return "image" if feature.np_dtype in (np.uint8, np.uint16) else "other"  # floats: as RGBA
    if isinstance(feature, tfds.features.Text):
        return "text"
    if is_class(feature):
        return "class"
    if type(feature) in (tfds.features.Tensor, tfds.features.Scalar) and (
        np.issubdtype(feature.np_dtype, np.number) or feature.np_dtype == np.bool_
    ):
        return "array" if feature.shape else "number"
    return "other"


def is_class(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.ClassLabel)


def column_of(path: str, feature: Any, values: list, size: tuple[int, int] | None) -> np.ndarray:
    """One feature of some records as an array [n, ...]."""
    kind = kind_of(feature)
    if kind == "image":
        return images.stack([_image(path, feature, value, size) for value in values], path)
    if kind == "text":
        try:
            return np.array([bytes(value).decode() for value in values] + [None], object)[:-1]
        except UnicodeDecodeError as error:
            raise ValueError(f"feature {path!r} holds a text that is not UTF-8: {error}") from error
    stacked = images.stack([np.asarray(value) for value in values], path)
    dtype = dtype_of(feature)
    if dtype == np.int32 and (stacked.astype(dtype) != stacked).any():
        raise ValueError(
            f"feature {path!r} holds whole numbers of more than 32 bits, up to {stacked.max()}; "
            "leave it out by naming the features that you need: inputs=, label="
        )
    if is_class(feature) and stacked.size and stacked.max() >= feature.num_classes:
        raise ValueError(
            f"feature {path!r} has {feature.num_classes} classes, but a label {stacked.max()}; "
            "features.json is damaged or of another version"
        )
    return stacked.astype(dtype)


def _image(path: str, feature: Any, value: bytes, size: tuple[int, int] | None) -> np.ndarray:
    try:
        pixels = image_files.decode(io.BytesIO(value), feature.shape[-1], size)
    except ValueError as error:
        raise ValueError(f"feature {path!r}: {error}") from error
    wanted = shape_of(feature, size)
    if any(n not in (None, m) for n, m in zip(wanted, pixels.shape, strict=True)):
        raise ValueError(
            f"feature {path!r} declares images of shape {list(wanted)}, but one has "
            f"{list(pixels.shape)}; size=(height, width) makes them alike"
        )
    return pixels
