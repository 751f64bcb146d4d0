"""Hugging Face's datasets opened: by their names on the hub, in folders, or in files."""

import contextlib
import glob
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxtl.data.table import Call, read_from, result_of
from jaxtl.paths import unknown

SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` writes, of splits and of one
SUFFIXES = {".parquet": "parquet", ".arrow": "arrow", ".json": "json", ".jsonl": "json"}
BUILDERS = {*SUFFIXES.values(), "csv", "text", "imagefolder", "webdataset", "xml", "pandas"}


class Source(NamedTuple):
    """What is opened.

    Attributes:
        path: a name on the hub, that of a builder such as "parquet", or a folder's.
        config, revision: of the hub.
        files: ((split, its files), ...), None for all that are there.
    """

    path: str
    config: str | None = None
    revision: str | None = None
    files: tuple[tuple[str, tuple[str, ...]], ...] | None = None


def source_of(
    path: str | os.PathLike, config: str | None, revision: str | None, data_files: Any
) -> Source:
    """What `hub` is to open; paths of files and folders that are there become absolute ones.

    Raises:
        ValueError: there is no such folder, or it is not said which files are meant.
    """
    text, place = os.fspath(path), Path(path).expanduser()
    if place.is_file() and data_files is None:
        if place.suffix.lower() not in SUFFIXES:
            known = ", ".join(SUFFIXES)
            raise ValueError(
                f"hub: {text} is no file that is read ({known}); a builder's name and data_files= "
                "may read it, and data.csv reads CSV files"
            )
        return Source(SUFFIXES[place.suffix.lower()], files=(("train", (str(place.absolute()),)),))
    looks_local = isinstance(path, os.PathLike) or text.startswith((".", "/", "~"))
    if text in BUILDERS and data_files is None:
        raise ValueError(f"hub: {text!r} reads files; name them in data_files=")
    if not text.strip() or (not place.is_dir() and (looks_local or text.count("/") > 1)):
        raise ValueError(f"hub: no folder {text!r}; datasets on the hub are called owner/name")
    files = None
    if data_files is not None:
        named = data_files if isinstance(data_files, Mapping) else {"train": data_files}
        files = tuple((str(split), _files(given)) for split, given in named.items())
    return Source(str(place.absolute()) if place.is_dir() else text, config, revision, files)


def _files(given: Any) -> tuple[str, ...]:
    given = [given] if isinstance(given, str | os.PathLike) else given
    if not isinstance(given, list | tuple) or not given:
        raise ValueError(f"hub: data_files must be files, or {{split: files}}, got {given!r}")
    return tuple(
        file if "://" in (file := os.fspath(each)) else str(Path(file).expanduser())
        for each in given
    )


def open_splits(source: Source) -> Mapping[str, Any]:
    """{split: `datasets.Dataset`}."""
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            "data.hub needs the package datasets. Install it with: pip install 'jaxtl[hub]'"
        ) from error
    root = Path(source.path)
    if root.is_dir() and source.files is None:
        read_from([root, *sorted(path for path in root.rglob("*"))])
    for _, files in source.files or ():
        read_from([match for file in files for match in sorted(glob.glob(file))])
    with _errors_of(source), _quiet(datasets, source):
        if root.is_dir() and any((root / name).is_file() for name in SAVED):
            loaded = datasets.load_from_disk(source.path)
        else:
            loaded = datasets.load_dataset(source.path, **_options(source))
    return loaded if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}


def _options(source: Source) -> dict[str, Any]:
    """Arguments of `datasets.load_dataset`."""
    files = {split: [*given] for split, given in source.files} if source.files else None
    return {"name": source.config, "revision": source.revision, "data_files": files}


@contextlib.contextmanager
def _quiet(datasets: Any, source: Source) -> Iterator[None]:
    """No bars of progress, unless something may be downloaded."""
    before = datasets.are_progress_bars_disabled()
    if os.path.isdir(source.path) or source.files:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def _errors_of(source: Source) -> Iterator[None]:
    """What `datasets` raises, in a line that says what to do."""
    try:
        yield
    except Exception as error:  # of any kind: the hub's, the network's, those of file formats
        kinds = [kind.__name__ for kind in type(error).__mro__]
        reason, where = " ".join(str(error).split()) or kinds[0], repr(source.path)
        if "DatasetNotFoundError" in kinds:
            message = (
                f"there is no dataset {where} on the Hugging Face hub that you may read, or no "
                "revision or file of that name; private ones need `hf auth login`"
            )
        elif {"ConnectionError", "OfflineModeIsEnabled", "HTTPError", "TimeoutError"} & {*kinds}:
            message = (
                f"cannot reach the dataset {where} on the Hugging Face hub, and it is not in the "
                "cache: is there a network, and is the name right? Elsewhere, "
                f"datasets.load_dataset({where}).save_to_disk('folder') makes a folder to pass here"
            )
        else:
            message = f"cannot read the dataset {where}"
        raise ValueError(f"{message} ({reason})") from error


def split_of(source: Source, split: str) -> Any:
    """A split, or a slice of one.

    Raises:
        ValueError: there is none of that name.
    """
    splits = result_of(Call(open_splits, (source,)))
    if split in splits:
        return splits[split]
    if wrong := [p for p in split.split("+") if p.split("[")[0].strip() not in splits]:
        raise ValueError(unknown("split", wrong[0].split("[")[0].strip(), splits))
    if any((Path(source.path) / name).is_file() for name in SAVED):
        raise ValueError(f"{split!r}: what save_to_disk() wrote has no slices; slice() may do")
    import datasets

    with _errors_of(source), _quiet(datasets, source):
        return datasets.load_dataset(source.path, split=split, **_options(source))
