"""Image files as a viewer shows them: depths, turns, transparency, damage and size."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.PngImagePlugin
import pytest

from jaxtl import data
from jaxtl.data.sources import image_files
from jaxtl.data.steps import images

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (5, 4), np.uint8)
COLOURS = RNG.integers(0, 256, (5, 4, 3), np.uint8)


def file(image, kind="PNG", **options):
    stream = io.BytesIO()
    image = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
    image.save(stream, kind, **options)
    stream.seek(0)
    return stream


def decoded(stream, *arguments):
    """What `decode` gives, after comparing it with what `header` promises."""
    pixels = image_files.decode(stream, *arguments)
    stream.seek(0)
    if not arguments:
        assert image_files.header(stream).shape == pixels.shape
    assert pixels.dtype == np.uint8
    return pixels


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_their_share_of_the_range(kind):
    values = np.array([[0, 257, 128], [129, 32896, 65535]], np.uint16)
    pixels = decoded(file(values, kind))
    np.testing.assert_array_equal(pixels[..., 0], [[0, 1, 0], [1, 128, 255]])
    np.testing.assert_array_equal(decoded(file(values, kind), 3), np.repeat(pixels, 3, 2))


def test_sixteen_bits_with_a_transparent_value():
    values = np.array([[0, 257], [514, 65535]], np.uint16)
    pixels = decoded(file(values, transparency=514))
    np.testing.assert_array_equal(pixels[..., 0], [[0, 1], [255, 255]])


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_numbers_without_a_range_are_refused(dtype, tmp_path):
    path = tmp_path / "depth.tif"
    PIL.Image.fromarray(np.ones((3, 3), dtype)).save(path)
    with pytest.raises(ValueError, match=r"cannot read the image .*depth\.tif: it holds .* 32 bit"):
        image_files.decode(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright(orientation, kind):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    stream = file(COLOURS, kind, exif=exif)
    with PIL.Image.open(stream) as image:
        expected = np.asarray(PIL.ImageOps.exif_transpose(image).convert("RGB"))
    assert expected.shape == ((5, 4, 3) if orientation < 5 else (4, 5, 3))
    stream.seek(0)
    np.testing.assert_array_equal(decoded(stream), expected)


@pytest.mark.parametrize("early", [True, False])
def test_png_may_declare_its_orientation_behind_the_pixels(early):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes()[6:]  # without "Exif\0\0"
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    whole = file(GRAY).getvalue()
    place = whole.index(b"IDAT" if early else b"IEND") - 4
    pixels = image_files.decode(io.BytesIO(whole[:place] + chunk + whole[place:]))
    np.testing.assert_array_equal(pixels[..., 0], np.rot90(GRAY, -1))


def test_unreadable_orientations_are_none():
    exif = PIL.Image.Exif()
    exif[0x0112] = 77
    np.testing.assert_array_equal(decoded(file(GRAY, exif=exif))[..., 0], GRAY)
    np.testing.assert_array_equal(decoded(file(GRAY, exif=b"Exif\0\0XX*\0"))[..., 0], GRAY)


def test_transparent_pixels_are_white():
    alpha = np.array([0, 255, 0, 255, 128], np.uint8)[:, None] * np.ones((1, 4), np.uint8)
    expected = np.where(alpha[..., None] == 0, 255, COLOURS)
    pixels = decoded(file(np.dstack([COLOURS, alpha])))
    np.testing.assert_array_equal(pixels[:4], expected[:4])
    middle = (COLOURS[4] * 128.0 + 255 * 127) / 255
    np.testing.assert_allclose(pixels[4], middle, atol=1)
    np.testing.assert_array_equal(  # who asks for four channels gets them as they are
        decoded(file(np.dstack([COLOURS, alpha])), 4), np.dstack([COLOURS, alpha])
    )
    gray = decoded(file(PIL.Image.merge("LA", [*map(PIL.Image.fromarray, (GRAY, alpha))])))
    np.testing.assert_array_equal(gray[:4, :, 0], np.where(alpha == 0, 255, GRAY)[:4])


@pytest.mark.parametrize("mode, key", [("L", 9), ("RGB", (9, 9, 9)), ("1", 0), ("P", 0)])
def test_a_transparent_colour_is_white(mode, key):
    image = PIL.Image.new("L", (2, 1), 9 if mode != "1" else 0)
    image.putpixel((1, 0), 200)
    image = image.convert(mode, **{"palette": PIL.Image.Palette.ADAPTIVE} if mode == "P" else {})
    key = image.getpixel((0, 0)) if mode == "P" else key
    pixels = decoded(file(image, transparency=key))
    assert pixels[0, 0].tolist() == [255] * pixels.shape[2]
    assert pixels[0, 1, 0] == (255 if mode == "1" else 200)


@pytest.mark.parametrize(
    "image",
    [GRAY, COLOURS, np.dstack([COLOURS, np.full((5, 4), 255, np.uint8)])],
    ids=["gray", "colours", "opaque"],
)
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM"])
def test_ordinary_images_are_as_pillow_has_them(image, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    image = image[..., :3] if kind == "PPM" else image
    pixels = decoded(file(image, kind, **options))
    opaque = image[..., :3] if image.ndim == 3 else image[..., None]
    if kind == "GIF" and image.ndim == 3:
        assert pixels.shape == opaque.shape  # its palette has other colours
    else:
        np.testing.assert_array_equal(pixels, np.broadcast_to(opaque, pixels.shape))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpegs_keep_their_bits(channels):
    stream = file(COLOURS if channels == 3 else GRAY, "JPEG")
    with PIL.Image.open(stream) as image:
        expected = np.asarray(image).reshape(5, 4, channels)
    stream.seek(0)
    np.testing.assert_array_equal(decoded(stream), expected)


def test_cmyk_and_one_bit():
    red = decoded(file(PIL.Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF"))
    np.testing.assert_array_equal(red, np.broadcast_to([255, 0, 0], (4, 4, 3)))
    bits = decoded(file(PIL.Image.fromarray(GRAY > 99)))
    np.testing.assert_array_equal(bits[..., 0], np.where(GRAY > 99, 255, 0))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_several_pictures(kind):
    pictures = [PIL.Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    stream = file(pictures[0], kind, save_all=True, append_images=pictures[1:], **options)
    assert decoded(stream)[0, 0, 0] > 250
    stream.seek(0)
    assert image_files.header(stream).animated
    assert not image_files.header(file(pictures[0], kind)).animated


def png_of(width, height, colours=False):
    """A PNG of zeros, without the memory that its pixels would take."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    kind = (8, 6) if colours else (1, 0)  # bits; RGBA or grey
    packer = zlib.compressobj(9)
    rows = b"".join(
        packer.compress(bytes(1 + (4 * width if colours else (width + 7) // 8)))
        for _ in range(height)
    )
    start = chunk(b"IHDR", struct.pack(">II5B", width, height, *kind, 0, 0, 0))
    pixels = chunk(b"IDAT", rows + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + start + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(13_000, 13_000), (2**26, 1), (1, 70_000)])
def test_sizes_are_checked_before_pixels_are_read(size, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(*size)[:4000])
    for read in (image_files.header, image_files.decode):
        with pytest.raises(ValueError, match=r"bomb.png: .* (pixels; at most|exceeds limit)"):
            read(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_damaged_files_say_which(kind, tmp_path):
    path, whole = tmp_path / "broken", file(np.tile(COLOURS, (9, 9, 1)), kind).getvalue()
    rng = np.random.default_rng(1)
    for cut in (0, 1, 9, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=f"cannot read the image {path}: "):
            image_files.decode(path)
    for _ in range(60):  # damaged in three places: read, or refused in one line
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 300), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            image_files.decode(path, 3, (4, 4))
        except ValueError as error:
            assert str(error).startswith(f"cannot read the image {path}: ")
            assert "\n" not in str(error)


def test_other_kinds_of_files_are_not_opened(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(ValueError, match="it is no PNG, JPEG"):
        image_files.decode(path)


@pytest.mark.parametrize("image", [GRAY, COLOURS], ids=["gray", "colours"])
def test_large_images_are_resized_alike(image, monkeypatch):
    image = np.kron(image, np.ones((9, 9, *[1] * (image.ndim - 2)), np.uint8))
    whole = decoded(file(image), None, (7, 9))
    monkeypatch.setattr(image_files, "LARGE", 0)
    assert np.abs(decoded(file(image), None, (7, 9)).astype(int) - whole).max() <= 1


def test_few_images_are_resized_at_a_time(monkeypatch):
    pixels = RNG.integers(0, 256, (5, 40, 30, 3), np.uint8)
    whole = images.resize(pixels, (7, 9))
    monkeypatch.setattr(images, "NUMBERS", 1)
    assert np.abs(images.resize(pixels, (7, 9)).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("size", [8, (8,), (8, 8, 3), (0, 8), (8, -1), (8.5, 8), "88", (None, 8)])
def test_sizes_are_two_whole_numbers(size):
    with pytest.raises(ValueError, match=r"image_folder: size(\[.\])? must be .*whole number"):
        data.image_folder("photos", size=size)
    assert data.image_folder("photos", size=[3, 4]) == data.image_folder("photos", size=(3, 4))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8192, 8192), (65536, 1024), (13_000, 13_000)])
def test_a_small_file_takes_little_memory_and_time(size, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(*size, colours=True))
    assert path.stat().st_size < 2**20
    program = f"""
from pathlib import Path
from jaxtl.data.sources import image_files
try:
    image_files.decode({str(path)!r}, 3, (8, 8))
except ValueError as error:
    print("refused", error)
status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
print(status["VmHWM"].split()[0])  # ru_maxrss would count the process that started this one
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    *told, kilobytes = result.stdout.splitlines()
    assert bool(told) == (size == (13_000, 13_000)) and int(kilobytes) < 2 * 2**20
