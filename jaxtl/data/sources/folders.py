"""Folders of images, one for each class."""

import collections
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from jaxtl.data.dataset import Dataset
from jaxtl.data.sources import image_files
from jaxtl.data.sources.names import class_names, in_order, natural, nfc, refuse_alike
from jaxtl.data.steps.images import ImageSize, one_shape, stack
from jaxtl.data.streamed import Streamed, stream
from jaxtl.data.table import Call, Table, read_from
from jaxtl.form import checked
from jaxtl.paths import unknown

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
SPLITS = re.compile(  # train, Validation, test_set, train2017
    r"(train(ing)?|val(id(ation)?)?|dev|eval(uation)?|test(ing)?)[_ -]?(set|data|images|\d{4})?",
    re.I,
)

logger = logging.getLogger(__name__)


@checked
def image_folder(
    path: str | os.PathLike,
    *,
    size: ImageSize | None = None,
    classes: Iterable[str] | None = None,
    streamed: bool | None = None,
) -> Dataset:
    """Images (PNG, JPEG, WebP, BMP, TIFF, GIF, PPM) in one folder for each class.

    How they are decoded: see `image_files.decode`. Folders in a class folder belong to its class.
    Left alone, wherever they stand: hidden files and folders, what systems leave behind
    (`__MACOSX`, `Thumbs.db`, ...), links to folders inside a class folder, and, with a word in the
    log, files that are no images and images outside the class folders.

    Args:
        path: the folder of the class folders.
        size: (height, width) that every image is resized to; they must share one size if None.
        classes: names of the class folders in order (text or whole numbers); by default all,
            sorted, numbers by value (2 before 10). A name may have no folder.
        streamed: decode the images of a batch when it is needed, not all beforehand; None: if they
            would take more than half of the machine's memory.

    Raises:
        ValueError: a `size` or `classes` of another kind; on use, if there is no such folder; class
            folders that are not among `classes`, hold no image, hold images of a kind that is not
            read, differ only in case or blanks, or are the same folder; folders that are splits
            (`train`, `val`, ...) and not named in `classes`; a single class folder that holds
            folders only; images that cannot be read; or sizes that differ.
    """
    folder = str(Path(path).expanduser())
    arguments = (folder, size and tuple(size), class_names(classes), streamed)
    return Dataset(Path(folder).name or folder, Call(_image_folder, arguments))


def _image_folder(
    path: str,
    size: tuple[int, int] | None,
    classes: tuple[str, ...] | None,
    streamed: bool | None,
) -> Table:
    folders = _class_folders(Path(path), classes)
    names = classes or tuple(folders)
    files = _image_files(path, folders)
    if classes is None and len(folders) == 1:
        _expect_images(path, folders, files)
    if empty := [name for name in names if name not in folders]:
        logger.info("%s: no folder of the classes %s", path, ", ".join(empty))
    paths = [file for name in folders for file in files[name]]
    labels = np.repeat([names.index(name) for name in folders], [*map(len, files.values())])
    version = read_from(paths).version
    headers = [image_files.header(file) for file in paths]
    animated = [file for file, header in zip(paths, headers, strict=True) if header.animated]
    if animated:
        logger.warning(
            "%s: %d files hold several pictures, of which the first is read, such as %s",
            *(path, len(animated), animated[0]),
        )
    channels = max(header.shape[2] for header in headers)
    shapes = {(*header.shape[:2], channels) for header in headers}
    shape = size or one_shape(shapes, path)[:2]

    def read(rows: np.ndarray) -> np.ndarray:
        return stack([image_files.decode(paths[i], channels, size) for i in rows], path)

    inputs = Streamed((len(paths), *shape, channels), np.uint8, read, version)
    inputs = inputs if stream(streamed, inputs.nbytes, path) else inputs[:]
    return Table(inputs, {"label": labels.astype(np.int32)}, {"label": names})


def _class_folders(root: Path, classes: tuple[str, ...] | None) -> dict[str, Path]:
    """{name: folder} in the order of the classes."""
    if not root.is_dir():
        raise ValueError(f"no folder {root}")
    read_from([root])
    try:
        entries = sorted((e for e in root.iterdir() if not _is_litter(e.name)), key=_natural)
    except OSError as error:
        raise ValueError(f"cannot look into the folder {root}: {error.strerror}") from error
    loose = [e for e in entries if e.suffix.lower() in (*READ, *UNREAD) and e.is_file()]
    folders: dict[str, Path] = {}
    for entry in entries:
        if entry.is_dir():
            name = nfc(entry.name)
            if name in folders:
                raise ValueError(f"{root} has two folders {name!r} in different Unicode forms")
            folders[name] = entry
    if not folders:
        images_there = f"{len(loose)} images but " if loose else ""
        raise ValueError(
            f"{root} has {images_there}no class folders; each class has a folder of its own"
        )
    if classes is None:
        refuse_alike(folders, f"{root}: class folders")
        splits = [name for name in folders if SPLITS.fullmatch(name)]
        if len(splits) > 1 or len(splits) == len(folders):
            raise ValueError(
                f"{root} holds splits ({', '.join(splits)}), not classes: pass "
                f"{root / splits[0]}, or classes={list(folders)} if they are classes"
            )
    elif strangers := [name for name in folders if name not in classes]:
        raise ValueError(f"{root}: {' '.join(unknown('class', s, classes) for s in strangers)}")
    _refuse_links(root, folders)
    if loose:
        logger.warning(
            "%s: %d images outside the class folders are left alone, such as %s",
            *(root, len(loose), loose[0].name),
        )
    return {name: folders[name] for name in classes or in_order(folders) if name in folders}


def _refuse_links(root: Path, folders: dict[str, Path]) -> None:
    places: dict[Path, str] = {}
    for name, folder in folders.items():
        place = folder.resolve()
        if root.resolve().is_relative_to(place):
            raise ValueError(f"{root}: the class folder {name!r} is a link to what it stands in")
        for other, other_name in places.items():
            if place.is_relative_to(other) or other.is_relative_to(place):
                raise ValueError(
                    f"{root}: the class folders {other_name!r} and {name!r} are linked, so they "
                    "hold the same images"
                )
        places[place] = name


def _image_files(root: str, folders: dict[str, Path]) -> dict[str, list[Path]]:
    """{class: its images in order}; whatever cannot be read is told at once."""
    files, problems, others = {}, [], collections.Counter()
    for name, folder in folders.items():
        entries = sorted(_files(folder), key=_natural)
        files[name] = [file for file in entries if file.suffix.lower() in READ]
        suffixes = collections.Counter(file.suffix.lower() for file in entries)
        rest = collections.Counter({s: n for s, n in suffixes.items() if s not in READ})
        unread = collections.Counter({s: n for s, n in rest.items() if s in UNREAD})
        others += rest - unread
        if unread:
            problems.append(f"{name!r} has images that are not read ({_counts(unread)})")
        elif not files[name]:
            problems.append(f"{name!r} has no image ({_counts(rest) or 'nothing'})")
    if problems:
        shown = "; ".join(problems[:5]) + (f"; {len(problems) - 5} more" if problems[5:] else "")
        raise ValueError(
            f"{root}: the class folder {shown}. Convert or move them; read are {', '.join(READ)}"
        )
    if others:
        logger.info(
            "%s: %d files are no images and are left alone (%s)",
            *(root, others.total(), _counts(others)),
        )
    return files


def _files(folder: Path) -> Iterator[Path]:
    """All files below a class folder that are no litter."""

    def refuse(error: OSError) -> None:
        raise ValueError(f"cannot look into the folder {error.filename}: {error.strerror}")

    for place, below, names in os.walk(folder, onerror=refuse):
        read_from([place])
        for name in [name for name in below if Path(place, name).is_symlink()]:
            logger.warning("%s is a link to a folder and is left alone", Path(place, name))
        below[:] = [name for name in below if not _is_litter(name)]  # links are not followed
        yield from (Path(place, name) for name in names if not _is_litter(name))


def _expect_images(root: str, folders: dict[str, Path], files: dict[str, list[Path]]) -> None:
    """Refuse a folder too high up: one folder in it, which holds nothing but folders of images."""
    ((name, folder),) = folders.items()
    places = {file.relative_to(folder).parent.parts[:1] for file in files[name]}
    if len(places) > 1 and () not in places:
        shown = ", ".join(sorted((part for (part,) in places), key=natural)[:3])
        raise ValueError(
            f"{root} has one class folder, {name!r}, and the images are in folders of it "
            f"({shown}, ...): pass {folder}, or classes=[{name!r}] if it is the only class"
        )


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER


def _natural(path: Path) -> tuple[tuple, ...]:
    return tuple(natural(part) for part in path.parts)


def _counts(suffixes: collections.Counter) -> str:
    return ", ".join(f"{suffix or 'no suffix'} {n}" for suffix, n in suffixes.most_common(5))
