"""Folders of images: one for each class, flat, or in splits."""

import collections
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxtl.data.dataset import Dataset
from jaxtl.data.sources import image_files
from jaxtl.data.sources.delimited_text import Format, read_cells
from jaxtl.data.sources.image_files import (
    READ,
    UNREAD,
    images_of,
    in_natural_order,
    is_litter,
)
from jaxtl.data.sources.names import class_names, in_order, natural, nfc, refuse_alike
from jaxtl.data.sources.roles import Roles, roles_of
from jaxtl.data.sources.tables import labels_of
from jaxtl.data.splits import Splits
from jaxtl.data.steps.images import ImageSize, one_shape, stack
from jaxtl.data.streamed import Streamed, stream
from jaxtl.data.table import Call, Table, read_from, result_of
from jaxtl.form import checked
from jaxtl.paths import unknown

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
    classes: Iterable[str] | Mapping[str, Iterable[str]] | None = None,
    table: str | os.PathLike | None = None,
    file: str = "file_name",
    label: str | Sequence[str] | Mapping[str, str] | None = None,
    regression: bool | Sequence[str] = False,
    streamed: bool | None = None,
) -> Dataset | Splits:
    """Images (PNG, JPEG, WebP, BMP, TIFF, GIF, PPM) in a folder, by the way that they lie there.

        photos/cat/1.jpg, photos/dog/2.jpg              a dataset, with a class for each folder
        photos/1.jpg, photos/2.jpg                      a dataset without labels
        photos/train/cat/1.jpg, photos/val/dog/2.jpg    `Splits`: train and val, of the same classes

    How they are decoded: see `image_files.decode`. Folders in a class folder belong to its class.
    Left alone, wherever they stand: hidden files and folders, what systems leave behind
    (`__MACOSX`, `Thumbs.db`, ...), links to folders inside a class folder, and, with a word in the
    log, files that are no images and images outside the class folders. Splits are called as their
    folders are: train, val, valid, dev, test, train2017, test_set, ..., in any case; one of them
    may be without labels.

    Args:
        path: the folder of the class folders, images or splits.
        size: (height, width) that every image is resized to; they must share one size if None.
        classes: names of the class folders in order (text or whole numbers); by default all,
            sorted, numbers by value (2 before 10). A name may have no folder.
        table: a CSV file in that folder, or elsewhere, which tells the labels in the place of
            class folders; an image that it does not name is without labels.
        file: its column of the paths of images, from the folder on.
        label, regression, classes: of that table, see `data.csv`.
        streamed: decode the images of a batch when it is needed, not all beforehand; None: if they
            would take more than half of the machine's memory.

    Raises:
        ValueError: arguments of another kind; on use, if there is no such folder; class folders
            that are not among `classes`, hold no image, hold images of a kind that is not read,
            differ only in case or blanks, or are the same folder; folders of which some are splits
            and not named in `classes`; a single class folder that holds folders only; images that
            cannot be read; sizes that differ; a table that names images that are not there.
    """
    folder = Path(path).expanduser()
    if table is None:
        if label is not None or regression or isinstance(classes, Mapping):
            raise ValueError("label= and regression= name columns of a table, of table=")
        labels, names = None, class_names(classes)
    else:
        if not label:
            raise ValueError("table= needs label=, its columns of labels")
        roles = roles_of(
            label,
            classes=classes,
            regression=regression,
            columns=[file],
            drop=(),
            categorical=[file],
        )
        labels, names = (str(folder / Path(table).expanduser()), roles), None
    splits = _splits(folder, names)
    place = Place(str(folder), splits, names, labels)

    def dataset(split: str, name: str) -> Dataset:
        return Dataset(name, Call(_images, (place, split, size and tuple(size), streamed)))

    name = folder.name or str(folder)
    if splits:
        return Splits(**{split: dataset(split, f"{name}.{split}") for split in splits})
    return dataset("", name)


class Place(NamedTuple):
    """Where images lie, and their labels.

    Attributes:
        path: the folder.
        splits: folders in it; none if it holds the images of one dataset.
        classes: names that are given.
        labels: a table and the roles of its columns; None for class folders.
    """

    path: str
    splits: tuple[str, ...]
    classes: tuple[str, ...] | None
    labels: tuple[str, Roles] | None


class Listing(NamedTuple):
    """The images of a split.

    Attributes:
        paths: in order.
        version: tells that files were changed, see `Streamed`.
        shapes: (height, width, channels) of the images, the channels those of all splits.
        labels, classes: by label column.
    """

    paths: list[Path]
    version: Callable[[np.ndarray], bytes]
    shapes: set[tuple[int, int, int]]
    labels: dict[str, np.ndarray]
    classes: dict[str, tuple[str, ...]]


def _splits(root: Path, classes: tuple[str, ...] | None) -> tuple[str, ...]:
    """Folders of splits, if all folders are such and none is meant as a class."""
    try:
        names = [e.name for e in root.iterdir() if e.is_dir() and not is_litter(e.name)]
    except OSError:  # told on use
        return ()
    if set(names) & {*(classes or ())} or not all(map(SPLITS.fullmatch, names)):
        return ()
    order = [*map(re.compile("train|val|dev|eval|test", re.I).match, names)]
    ranks = [("train", "val", "dev", "eval", "test").index(m.group().lower()) for m in order]
    return tuple(name for _, name in sorted(zip(ranks, names, strict=True)))


def _images(place: Place, split: str, size: tuple[int, int] | None, streamed: bool | None) -> Table:
    listing = result_of(Call(_listings, (place,)))[split]
    paths, where = listing.paths, str(Path(place.path, split))
    shape = size or one_shape(listing.shapes, where)[:2]
    channels = next(iter(listing.shapes))[2]

    def read(rows: np.ndarray) -> np.ndarray:
        return stack([image_files.decode(paths[i], channels, size) for i in rows], where)

    source = (image_files.decode, channels, size)
    inputs = Streamed((len(paths), *shape, channels), np.uint8, read, listing.version, source)
    inputs = inputs if stream(streamed, inputs.nbytes, where) else inputs[:]
    return Table(inputs, listing.labels, listing.classes)


def _listings(place: Place) -> dict[str, Listing]:
    """The images of every split; of the folder itself, as "", if it has no splits."""
    roots = {split: Path(place.path, split) for split in place.splits or ("",)}
    folders = {split: _class_folders(root, place) for split, root in roots.items()}
    names = tuple(in_order({name for inside in folders.values() for name in inside}))
    if place.classes is None:
        refuse_alike(names, f"{place.path}: class folders")
    names = place.classes or names
    if len({root.resolve() for root in roots.values()}) < len(roots):
        raise ValueError(f"{place.path}: splits ({', '.join(roots)}) are links to the same folder")
    paths, labels = {}, {}
    for split, root in roots.items():
        inside = {name: folders[split][name] for name in names if name in folders[split]}
        files = images_of(str(root), inside or {"": root})
        if place.classes is None and len(inside) == 1:
            _expect_images(str(root), inside, files)
        if inside and (empty := [name for name in names if name not in inside]):
            logger.info("%s: no folder of the classes %s", root, ", ".join(empty))
        paths[split] = [file for group in files.values() for file in group]
        places = [names.index(name) for name in inside]
        counts = [len(files[name]) for name in inside]
        labels[split] = {"label": np.repeat(places, counts).astype(np.int32)} if inside else {}
        if not inside and place.labels is None:
            logger.info(
                "%s: %d images without labels, as there are no class folders",
                root,
                len(paths[split]),
            )
    classes = {"label": names} if names else {}
    if place.labels is not None:
        labels, classes = _labels_of_table(place, paths)
    versions = {split: read_from(files).version for split, files in paths.items()}
    headers = {split: [*map(image_files.header, files)] for split, files in paths.items()}
    channels = max(header.shape[2] for group in headers.values() for header in group)
    listings = {}
    for split, group in headers.items():
        _log_animated(str(roots[split]), paths[split], group)
        shapes = {(*header.shape[:2], channels) for header in group}
        own_classes = {column: classes[column] for column in labels[split] if column in classes}
        listings[split] = Listing(paths[split], versions[split], shapes, labels[split], own_classes)
    return listings


def _log_animated(root: str, paths: list[Path], headers: list[image_files.Header]) -> None:
    animated = [file for file, header in zip(paths, headers, strict=True) if header.animated]
    if animated:
        logger.warning(
            "%s: %d files hold several pictures, of which the first is read, such as %s",
            *(root, len(animated), animated[0]),
        )


def _labels_of_table(
    place: Place, paths: dict[str, list[Path]]
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, tuple[str, ...]]]:
    """{split: labels}, and the classes, that a table tells."""
    file, roles = place.labels
    cells = result_of(Call(read_cells, (file, roles, Format(",", None))))
    values, classes = labels_of([cells], 0, roles)
    (named,) = cells.inputs.values()
    rows = {name.replace("\\", "/"): row for row, name in enumerate(named)}
    if len(rows) < len(named):
        twice = collections.Counter(named).most_common(1)[0][0]
        raise ValueError(f"{file} names the image {twice!r} twice")
    keys = {
        split: [nfc(path.relative_to(place.path).as_posix()) for path in files]
        for split, files in paths.items()
    }
    absent = rows.keys() - {key for group in keys.values() for key in group}
    if absent:
        raise ValueError(
            f"{file} names {len(absent)} images that are not in {place.path}, such as "
            f"{min(absent)!r}"
        )
    labels = {}
    for split, group in keys.items():
        if unnamed := [key for key in group if key not in rows]:
            logger.warning(
                "%s: %d of %d images are not in %s and have no labels, such as %s",
                *(Path(place.path, split), len(unnamed), len(group), file, unnamed[0]),
            )
        index = np.array([rows.get(key, -1) for key in group], int)
        labels[split] = {}
        for column, known in values.items():
            missing = -1 if column in classes else np.nan
            labels[split][column] = np.where(index >= 0, known[index], missing).astype(known.dtype)
    return labels, classes


def _class_folders(root: Path, place: Place) -> dict[str, Path]:
    """{name: folder}; none of images that lie in the folder itself, or whose labels a table has."""
    if not root.is_dir():
        raise ValueError(f"no folder {root}")
    read_from([root])
    try:
        entries = sorted((e for e in root.iterdir() if not is_litter(e.name)), key=in_natural_order)
    except OSError as error:
        raise ValueError(f"cannot look into the folder {root}: {error.strerror}") from error
    if place.labels is not None:
        return {}
    classes = place.classes
    loose = [e for e in entries if e.suffix.lower() in (*READ, *UNREAD) and e.is_file()]
    folders: dict[str, Path] = {}
    for entry in entries:
        if entry.is_dir():
            name = nfc(entry.name)
            if name in folders:
                raise ValueError(f"{root} has two folders {name!r} in different Unicode forms")
            folders[name] = entry
    if not folders and (not loose or (classes is not None and not place.splits)):
        images_there = f"{len(loose)} images but " if loose else ""
        raise ValueError(
            f"{root} has {images_there}no class folders; each class has a folder of its own"
        )
    if classes is None:
        refuse_alike(folders, f"{root}: class folders")
        splits = [name for name in folders if SPLITS.fullmatch(name)]
        if len(splits) > 1 or (splits and len(splits) == len(folders)):
            raise ValueError(
                f"{root} holds splits ({', '.join(splits)}), not classes: pass "
                f"{root / splits[0]}, or classes={list(folders)} if they are classes"
            )
    elif strangers := [name for name in folders if name not in classes]:
        raise ValueError(f"{root}: {' '.join(unknown('class', s, classes) for s in strangers)}")
    _refuse_links(root, folders)
    if loose and folders:
        logger.warning(
            "%s: %d images outside the class folders are left alone, such as %s",
            *(root, len(loose), loose[0].name),
        )
    return folders


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
