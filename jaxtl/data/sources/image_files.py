"""Image files: which are in a folder, and as arrays, decoded as a viewer shows them."""

import collections
import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxtl.data.sources.names import natural
from jaxtl.data.steps import images
from jaxtl.data.table import read_from

if TYPE_CHECKING:
    import PIL.Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # Pillow's names
MAX_PIXELS = 2**26  # of a file, 64 megapixels
MAX_SIDE = 2**16
LARGE = 2**26  # numbers of an image that Pillow resizes, in less memory
BACKGROUND = "white"  # what is seen through transparent pixels


READ = (  # suffixes of the files that are decoded
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
UNREAD = (  # images too, which nobody would want to miss silently
    *(".heic", ".heif", ".avif", ".apng", ".jp2", ".j2k", ".jxl", ".svg", ".psd", ".tga", ".ico"),
    *(".exr", ".hdr", ".dng", ".nef", ".cr2", ".cr3", ".arw", ".raw", ".raf", ".dcm", ".pcx"),
)
LITTER = {  # of systems and tools, beside all names that start with a dot
    *("__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
}

logger = logging.getLogger(__name__)


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
        shown = _as_shown(image, channels or _channels(image.mode))
        if size is not None and shown.width * shown.height * len(shown.getbands()) > LARGE:
            shown = shown.resize(size[::-1], PIL.Image.Resampling.BILINEAR)
        pixels = np.asarray(shown)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return pixels if size is None else images.resize(pixels[None], size)[0]


def header(file: Any) -> Header:
    """What `decode(file)` has, without decoding it; raises what that does for a bad header."""
    with _open(file) as image:
        height, width = image.height, image.width
        if image.format != "TIFF" and _orientation(image) >= 5:  # Pillow turns TIFF by itself
            height, width = width, height
        animated = image.format != "MPO" and getattr(image, "is_animated", False)
        return Header((height, width, _channels(image.mode)), animated)


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


def _as_shown(image: "PIL.Image.Image", channels: int) -> "PIL.Image.Image":
    """The image as a viewer shows it, in 1, 3 or 4 channels of 8 bits, see `decode`."""
    import PIL.Image
    import PIL.ImageOps

    image.load()
    with contextlib.suppress(Exception):  # damaged metadata of a picture that is whole
        PIL.ImageOps.exif_transpose(image, in_place=True)
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


def images_of(root: str, folders: dict[str, Path]) -> dict[str, list[Path]]:
    """{class: the images in its folder, in order}, of a folder without classes "".

    Raises:
        ValueError: of all folders: there is no image in it, or one that is not read.
    """
    files, problems, others = {}, [], collections.Counter()
    for name, folder in folders.items():
        entries = sorted(files_below(folder), key=in_natural_order)
        files[name] = [file for file in entries if file.suffix.lower() in READ]
        suffixes = collections.Counter(file.suffix.lower() for file in entries)
        rest = collections.Counter({s: n for s, n in suffixes.items() if s not in READ})
        unread = collections.Counter({s: n for s, n in rest.items() if s in UNREAD})
        others += rest - unread
        what = f"{name!r} " if name else ""
        if unread:
            problems.append(f"{what}has images that are not read ({_counts(unread)})")
        elif not files[name]:
            problems.append(f"{what}has no image ({_counts(rest) or 'nothing'})")
    if problems:
        shown = "; ".join(problems[:5]) + (f"; {len(problems) - 5} more" if problems[5:] else "")
        kind = "the folder" if "" in folders else "the class folder"
        raise ValueError(
            f"{root}: {kind} {shown}. Convert or move them; read are {', '.join(READ)}"
        )
    if others:
        logger.info(
            "%s: %d files are no images and are left alone (%s)",
            *(root, others.total(), _counts(others)),
        )
    return files


def files_below(folder: Path) -> Iterator[Path]:
    """All files in a folder and those in it that are no litter; links to folders stay alone.

    Raises:
        ValueError: a folder cannot be looked into.
    """

    def refuse(error: OSError) -> None:
        raise ValueError(f"cannot look into the folder {error.filename}: {error.strerror}")

    for place, below, names in os.walk(folder, onerror=refuse):
        read_from([place])
        for name in [name for name in below if Path(place, name).is_symlink()]:
            logger.warning("%s is a link to a folder and is left alone", Path(place, name))
        below[:] = [name for name in below if not is_litter(name)]  # links are not followed
        yield from (Path(place, name) for name in names if not is_litter(name))


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is what systems and tools leave behind."""
    return name.startswith(".") or name.lower() in LITTER


def in_natural_order(path: Path) -> tuple[tuple, ...]:
    """Key of the order image2, image10, folder by folder."""
    return tuple(natural(part) for part in path.parts)


def _counts(suffixes: collections.Counter) -> str:
    return ", ".join(f"{suffix or 'no suffix'} {n}" for suffix, n in suffixes.most_common(5))
