"""Image arrays on the host: [n, height, width, channels] in, the same layout and dtype out."""

import contextlib
import math
import operator
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import PIL.Image

CHUNK = 4096  # images converted to float32 at a time, fewer where they are large
NUMBERS = 2**28  # in float32 at a time
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # Pillow's names
MAX_PIXELS = 2**26  # of a file, 64 megapixels
MAX_SIDE = 2**16
LARGE = 2**26  # numbers of an image that Pillow resizes, in less memory
BACKGROUND = "white"  # what is seen through transparent pixels
TURNS = (  # for the orientations 2 to 8 of EXIF, Pillow's names
    *("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE"),
    *("ROTATE_270", "TRANSVERSE", "ROTATE_90"),
)


def resize(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, antialiased when shrinking: the filter of Pillow's `Image.resize(BILINEAR)`.

    Args:
        images: [n, height, width, channels].
        size: (height, width) wanted.
    """
    if images.shape[1:3] == tuple(size):
        return images
    vertical, horizontal = (
        triangles(*sizes) for sizes in zip(images.shape[1:3], size, strict=True)
    )
    resized = np.empty((len(images), *size, images.shape[3]), images.dtype)
    chunk = min(CHUNK, max(1, NUMBERS // max(1, math.prod(images.shape[1:]))))
    for start in range(0, len(images), chunk):
        rows = slice(start, start + chunk)
        part = images[rows].astype(np.float32)
        part = np.einsum("ih,nhwc,jw->nijc", vertical, part, horizontal, optimize=True)
        resized[rows] = _like(images, part)
    return resized


def triangles(old: int, new: int) -> np.ndarray:
    """[new, old] float32: weights of the old pixels in each new one; rows sum to one."""
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale
    distances = np.abs(np.arange(old) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distances)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _like(images: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` in the dtype of `images`, rounded and clipped if that is uint8."""
    if images.dtype == np.uint8:
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return values.astype(images.dtype)


def grayscale(images: np.ndarray) -> np.ndarray:
    """One channel: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601); grey images are unchanged."""
    if images.shape[3] == 1:
        return images
    _expect_channels(images, 3)
    gray = np.empty((*images.shape[:3], 1), images.dtype)
    weights = np.array([[0.299], [0.587], [0.114]], np.float32)
    for start in range(0, len(images), CHUNK):
        gray[start : start + CHUNK] = _like(images, images[start : start + CHUNK] @ weights)
    return gray


def rgb(images: np.ndarray) -> np.ndarray:
    """Three channels: a grey one is repeated; colour images are unchanged."""
    if images.shape[3] == 3:
        return images
    _expect_channels(images, 1)
    return np.repeat(images, 3, axis=3)


def _expect_channels(images: np.ndarray, channels: int) -> None:
    if images.shape[3] != channels:
        raise ValueError(f"expected images with 1 or 3 channels, got {images.shape[3]}")


def pad(images: np.ndarray, pixels: int) -> np.ndarray:
    """A black frame of `pixels` on each side."""
    return np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))


def center_crop(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle (height, width) of each image; half a pixel too far up and left if it is odd."""
    height, width = size
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    if top < 0 or left < 0:
        raise ValueError(f"cannot crop {height}x{width} out of {images.shape[1]}x{images.shape[2]}")
    return images[:, top : top + height, left : left + width]


def stack(arrays: Sequence[np.ndarray], what: str) -> np.ndarray:
    """`np.stack`; ValueError that names the sizes if the arrays differ in shape."""
    one_shape({array.shape for array in arrays}, what)
    return np.stack(arrays)


def concatenate(arrays: Sequence[np.ndarray], what: str) -> np.ndarray:
    """`np.concatenate`; ValueError that names the sizes if the rows differ in shape."""
    one_shape({array.shape[1:] for array in arrays}, what)
    return np.concatenate(arrays)


def one_shape(shapes: set[tuple[int, ...]], what: str) -> tuple[int, ...]:
    """The only one of the shapes; ValueError that names some of them if there are several."""
    if len(shapes) > 1:
        shown = ", ".join("x".join(map(str, shape)) for shape in sorted(shapes)[:3])
        raise ValueError(
            f"{what}: arrays of different sizes ({shown}); images can be resized with "
            "size=(height, width)"
        )
    return next(iter(shapes), ())


class Header(NamedTuple):
    """What the first bytes of an image file say.

    Attributes:
        shape: (height, width, channels) of the decoded image.
        animated: whether more pictures follow the first one, which alone is read.
    """

    shape: tuple[int, int, int]
    animated: bool


def decode(
    file: Any, channels: int | None = None, size: tuple[int, int] | None = None
) -> np.ndarray:
    """An image file as uint8 [height, width, channels], as a viewer shows it.

    It is turned as its EXIF orientation says. 16 bits become 8 by their share of the full range
    (v / 257; colours drop their low byte). Through transparent pixels one sees white, unless there
    are four channels. Palettes and CMYK become RGB. Of several pictures in a file the first is
    read.

    Args:
        file: path or binary file of a PNG, JPEG, WebP, BMP, TIFF, GIF or PPM.
        channels: 1, 3 or 4; None for 1 if the file is grey and 3 otherwise.
        size: (height, width) to resize to.

    Raises:
        ValueError: a file that cannot be read, has more than `MAX_PIXELS` or a side longer than
            `MAX_SIDE`, or holds numbers of 32 bits, whose range nobody knows.
    """
    import PIL.Image

    with _open(file) as image:
        shown = _shown(image, channels or _channels(image.mode))
        if size is not None and shown.width * shown.height * len(shown.getbands()) > LARGE:
            shown = shown.resize(size[::-1], PIL.Image.Resampling.BILINEAR)
        pixels = np.asarray(shown)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return pixels if size is None else resize(pixels[None], size)[0]


def header(file: Any) -> Header:
    """What `decode(file)` has, without decoding it; raises what that does for a bad header."""
    with _open(file) as image:
        height, width = image.height, image.width
        if _late_metadata(image):
            image.load()
        if image.format != "TIFF" and _orientation(image) >= 5:  # Pillow turns TIFF by itself
            height, width = width, height
        animated = image.format != "MPO" and getattr(image, "is_animated", False)
        return Header((height, width, _channels(image.mode)), animated)


def image_size(size: Any) -> tuple[int, int] | None:
    """(height, width) of an argument `size`, None if it is.

    Raises:
        ValueError: it is not two whole numbers of at least 1.
    """
    if size is None:
        return None
    try:
        height, width = map(operator.index, size)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise ValueError(f"size must be (height, width), whole numbers of at least 1; got {size!r}")
    return height, width


@contextlib.contextmanager
def _open(file: Any) -> "Iterator[PIL.Image.Image]":
    import PIL.Image

    try:
        with PIL.Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
                raise ValueError(
                    f"{image.width} x {image.height} pixels; at most {MAX_PIXELS >> 20} "
                    f"megapixels and {MAX_SIDE} a side are read, so make it smaller"
                )
            yield image
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        name = f" {os.fspath(file)}" if isinstance(file, str | os.PathLike) else ""
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, PIL.UnidentifiedImageError):
            reason = f"it is no {', '.join(FORMATS)}, or damaged"
        raise ValueError(f"cannot read the image{name}: {reason}") from error


def _channels(mode: str) -> int:
    return 1 if mode in ("1", "L", "LA", "La", "I", "F") or mode.startswith("I;16") else 3


def _shown(image: "PIL.Image.Image", channels: int) -> "PIL.Image.Image":
    """The image as a viewer shows it, in 1, 3 or 4 channels of 8 bits, see `decode`."""
    import PIL.Image

    image.load()
    if (orientation := _orientation(image)) > 1 and image.format != "TIFF":
        image = image.transpose(PIL.Image.Transpose[TURNS[orientation - 2]])
    if _channels(image.mode) == 1 and image.mode not in ("1", "L", "LA", "La"):
        image = _eight_bits(image)
    if channels != 4 and image.has_transparency_data:
        image = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        canvas = PIL.Image.new("RGBA", image.size, BACKGROUND)
        canvas.alpha_composite(image)
        image = canvas
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(image: "PIL.Image.Image") -> "PIL.Image.Image":
    """Grey of 16 bits as 8 bits, with an alpha channel where a value is declared transparent."""
    import PIL.Image

    bits = image.tag_v2.get(258, (1,))[0] if image.format == "TIFF" else 16  # BitsPerSample
    if image.mode == "F" or bits != 16:
        kind = "floats" if image.mode == "F" else "integers"
        raise ValueError(
            f"it holds {kind} of {bits} bits, whose black and white are not known; save it with 8 "
            "or 16 bits, or load the numbers with data.arrays"
        )
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"its grey values {values.min()} to {values.max()} exceed 0 to 65535")
    gray = PIL.Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if "transparency" in image.info:
        gray.putalpha(
            PIL.Image.fromarray(255 * (values != image.info["transparency"]).astype("u1"))
        )
    return gray


def _orientation(image: "PIL.Image.Image") -> int:
    """1 to 8 of EXIF or XMP, 1 if none is declared or can be read."""
    import PIL.ExifTags
    import PIL.Image

    try:
        value = PIL.Image.Image.getexif(image).get(PIL.ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata of a picture that is whole
        return 1
    return int(value) if value in range(1, 9) else 1


def _late_metadata(image: "PIL.Image.Image") -> bool:
    """Whether a PNG file says more about itself behind its pixels, which only `load` reads."""
    if image.format != "PNG":
        return False
    position, pixels = image.fp.tell(), False
    image.fp.seek(8)
    while len(start := image.fp.read(8)) == 8:
        pixels |= start[4:] == b"IDAT"
        if pixels and start[4:] in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
            break
        image.fp.seek(int.from_bytes(start[:4]) + 4, 1)
    image.fp.seek(position)
    return len(start) == 8
