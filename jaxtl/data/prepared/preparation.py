"""Preparing datasets on disk, those of TFDS and of ours."""

import contextlib
import importlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from jaxtl.data.prepared.builders.originals import Refused
from jaxtl.data.prepared.tfds_folders import (
    OWN,
    data_root,
    find_folder,
    known_names,
    open_builder,
    parse_name,
    prepared_folder,
    split_names,
)
from jaxtl.files import why_unwritable
from jaxtl.paths import closest, unknown

logger = logging.getLogger(__name__)
RETRIES = 2  # of a download


def prepare(name: str, data_dir: str | os.PathLike | None = None) -> Path:
    """Download a dataset and write it as array_record files, unless that was done before.

    Args:
        name: as TFDS has it, with `/config` where wanted, or a builder of ours, as `office31`.
            Its files are searched in `<data_dir>/downloads/manual/<name>`, then downloaded.
        data_dir: `TFDS_DATA_DIR` or TFDS's default if None.

    Returns:
        The dataset's folder. It appears only when it is complete.

    Raises:
        ValueError: an unknown dataset, what went wrong (nothing half-written is left), or a
            dataset that was prepared before and is damaged.
    """
    check_names([name])
    root, base = data_root(data_dir), parse_name(name)[0]
    if base in OWN and (folder := find_folder(name, root)):  # also one that others made
        logger.info("%s was prepared before, in %s", name, folder)
    else:
        logger.info("preparing %s in %s", name, root)
        discard = discarding(name, root)
        try:
            _write(name, root)
        except BaseException as error:
            discard()
            if not isinstance(error, Exception):
                raise
            raise ValueError(f"cannot prepare {name!r}: {_reason(error)}") from error
    folder = prepared_folder(name, root)
    open_builder(folder, split_names(folder))  # TFDS takes a folder that is there for whole
    return folder


def _write(name: str, root: str) -> None:
    """Let TFDS prepare a dataset; anything may be raised."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader
    from tqdm.contrib.logging import logging_redirect_tqdm

    if reason := why_unwritable(Path(root)):
        raise Refused(f"cannot write {root}: {reason}")
    base, config, _ = parse_name(name)
    if base in OWN:
        importlib.import_module(OWN[base])
    configs = tfds.builder_cls(base).builder_configs
    if config is not None and config not in configs:
        raise Refused(unknown("config", config, configs))
    downloader.MAX_RETRIES = RETRIES  # its ten, each wait twice as long, take minutes offline
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # every retry of every file
    bars = sys.stderr.isatty() or "ipykernel" in sys.modules
    tfds.display_progress_bar(bars)
    # Lines of the log stand above the bars.
    with logging_redirect_tqdm() if bars else contextlib.nullcontext():
        tfds.builder(name, data_dir=root).download_and_prepare(
            file_format="array_record",
            download_dir=Path(root, "downloads"),
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
        )


def check_names(names: Iterable[str]) -> None:
    """See that datasets can be prepared by these names.

    Raises:
        ValueError: one is unknown, with the closest names.
    """
    for name in names:
        base = parse_name(name)[0]
        if base not in known_names():
            near = ", ".join(closest(base, known_names()))
            raise ValueError(f"unknown dataset {name!r}. Closest names: {near or 'none'}.")


def contents(folder: Path) -> str:
    """What a prepared dataset holds and where it is, in a line."""
    info = open_builder(folder, split_names(folder)).info
    counts = ", ".join(f"{name} {info.splits[name].num_examples:,}" for name in info.splits)
    return f"{info.full_name}: {counts} examples, in {folder}"


def discarding(name: str, data_dir: str | os.PathLike | None = None) -> Callable[[], None]:
    """What removes all that preparing a dataset leaves half-written from now on."""
    root, base = data_root(data_dir), parse_name(name)[0]
    before = _traces(root, base)

    def discard() -> None:
        for path in sorted(_traces(root, base) - before, reverse=True):
            if path.name.startswith(("incomplete.", ".config")) or ".tmp." in path.name:
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir():
                with contextlib.suppress(OSError):  # it holds something that is whole
                    path.rmdir()
            else:
                path.unlink(missing_ok=True)

    return discard


def _traces(root: str, base: str) -> set[Path]:
    """What is written before a dataset is whole, and the folders around.

    The name of the default config is such a trace: it would hide what others prepared without
    configs.
    """
    folder, downloads = Path(root, base), Path(root, "downloads")
    manual, by_tfds = downloads / "manual" / base, downloads / base
    around = {folder, *folder.glob("*"), manual, manual.parent, by_tfds}
    around |= {downloads / "extracted", downloads, Path(root)}
    return {path for path in around if path.is_dir()} | {
        *folder.rglob("incomplete.*"),
        *manual.glob(".*.tmp"),
        *by_tfds.rglob("*.tmp.*"),
    }


def _reason(error: Exception) -> str:
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import Timeout

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Refused):
            return str(cause)
        if isinstance(cause, NoConnection | Timeout):
            url = cause.request.url if cause.request is not None else "its server"
            return f"no connection to {url}. Preparing needs a network, everything else does not"
        if isinstance(cause, ImportError) and "tensorflow" in str(cause).lower():
            return "its builder needs TensorFlow. Install it with: pip install 'jaxtl[prepare]'"
        cause = cause.__cause__ or cause.__context__
    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())[:500]  # TFDS asserts what users can get wrong
