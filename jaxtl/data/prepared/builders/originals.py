"""The published files that a dataset is made from: found, downloaded, checked.

A person may put them by hand into `<data_dir>/downloads/manual/<dataset>/` (or beside it, into
`manual/`), as the archive or unpacked. What is not there is downloaded to that same place, if a
stable address is known; otherwise one message says what to get from where and where to put it.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jaxtl.files import atomically

logger = logging.getLogger(__name__)
RETRIES = 2  # of a download
TIMEOUT_SECONDS = 30  # without a byte
CHUNK = 2**20


class Refused(ValueError):
    """Originals that are missing, damaged or others than were published, in words for the user."""


@dataclasses.dataclass(frozen=True)
class Original:
    """A file as it was published.

    Attributes:
        file: its name.
        page: where a person gets it.
        url: a stable address to download it from; empty if only a person can get it.
        size: its bytes, 0 if unknown.
        sums: what is published, as `md5:...`, `sha1:...` or `sha256:...`; one that agrees will do.
        folders: paths inside the unpacked archive. A folder that holds them all serves as well;
            it has no sum. Empty: only the file will do.
        mirrors: further addresses, for when the first one brings nothing.
    """

    file: str
    page: str
    url: str = ""
    size: int = 0
    sums: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()


def obtain(
    name: str, originals: Mapping[str, Original | Sequence[Original]], manual: Path
) -> dict[str, Path]:
    """Paths of the originals of a dataset: files, or folders that were unpacked.

    Args:
        name: of the dataset.
        originals: {any key: original}; of several for a key the first that is there, and the
            first that has an address.
        manual: the folder for files that a person gets.

    Raises:
        Refused: some are missing, cannot be downloaded, or are not what was published.
    """
    choices = {
        key: (original,) if isinstance(original, Original) else tuple(original)
        for key, original in originals.items()
    }
    paths = {key: _find(name, choice, manual) for key, choice in choices.items()}
    missing = {key: choice for key, choice in choices.items() if paths[key] is None}
    by_hand = [choice for choice in missing.values() if not any(item.url for item in choice)]
    if by_hand:
        raise Refused(_instruction(name, by_hand, manual))
    for key in list(missing):
        original = next(item for item in missing[key] if item.url)
        try:
            paths[key] = _from_any_address(original, manual / name / original.file)
        except ConnectionError as error:
            remedy = _instruction(name, list(missing.values()), manual)
            raise Refused(f"{error}. By hand: {remedy}") from error
        del missing[key]
    return paths


def verify(original: Original, path: Path, label: str | None = None) -> str:
    """What was checked about a file, in words.

    Args:
        label: what to call it in the message, its path if None.

    Raises:
        Refused: it has another size or another sum than was published.
    """
    size = path.stat().st_size
    algorithms = dict.fromkeys(text.split(":")[0] for text in original.sums)
    actual = [f"{algorithm}:{_sum(path, algorithm)}" for algorithm in algorithms]
    if agreeing := [text for text in actual if text in original.sums]:
        return f"its {agreeing[0].split(':')[0]} agrees"
    if original.sums or original.size not in (0, size):
        lengths = f"{size:,} bytes" + (f", expected {original.size:,}" if original.size else "")
        sums = f"; {', '.join(actual)}, expected {' or '.join(original.sums)}" if actual else ""
        unpacked = f", or unpack yours there to a folder with {_listed(original.folders)}"
        raise Refused(
            f"{label or path} is not the {original.file} that was published, or is cut off: "
            f"{lengths}{sums}. Get it again from {original.page}"
            + (unpacked if original.folders else "")
        )
    checked = "its size agrees" if original.size else "nor is its size"
    return f"no sum of it is published, {checked}; its examples are counted"


def _sum(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _find(name: str, choice: Sequence[Original], manual: Path) -> Path | None:
    """The first of several originals that a person put there, its sum checked."""
    for original in choice:
        for path in (manual / name / original.file, manual / original.file):
            if path.is_file():
                logger.info("%s: %s", path, verify(original, path))
                return path
    for original in filter(lambda original: original.folders, choice):
        for folder in _folders(name, original, manual):
            if not _lacking(original, folder):
                logger.info("%s: no sum of a folder is published; its examples are counted", folder)
                return folder
    return None


def _folders(name: str, original: Original, manual: Path) -> Iterator[Path]:
    """Where an archive may have been unpacked."""
    for folder in (manual / name, manual / original.file.split(".")[0]):
        if folder.is_dir():
            yield folder
            yield from sorted(path for path in folder.iterdir() if path.is_dir())


def _lacking(original: Original, folder: Path) -> list[str]:
    """The folders of an unpacked archive that this folder, or one of its name, does not hold."""
    return [
        inside
        for inside in original.folders
        if not (folder / inside).is_dir()
        and not (inside.split("/")[0] == folder.name and (folder.parent / inside).is_dir())
    ]


def _instruction(name: str, choices: Sequence[Sequence[Original]], manual: Path) -> str:
    """What a person does to bring originals that are missing."""
    files: dict[str, list[str]] = {}  # by page
    for choice in choices:
        if len(choice) == 1:
            files.setdefault(choice[0].page, []).append(choice[0].file)
    wanted = [f"{_listed(names)} from {page}" for page, names in files.items()]
    wanted += [
        " or ".join(f"{item.file} from {item.page}" for item in choice)
        for choice in choices
        if len(choice) > 1
    ]
    it = "it" if len(choices) == 1 else "them"
    text = f"get {'; '.join(wanted)}; put {it} into {manual / name}"
    archives = {choice[0].file: choice[0] for choice in choices if choice[0].folders}
    for file, original in archives.items():
        text += f"; {file} may be unpacked there, to a folder with {_listed(original.folders)}"
        for folder in _folders(name, original, manual):
            lacking = _lacking(original, folder)
            if len(lacking) < len(original.folders):
                text += f" ({folder} lacks {_listed(lacking)})"
    return f"{text}. Then prepare it again"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _from_any_address(original: Original, path: Path) -> Path:
    problems = []
    for url in (original.url, *original.mirrors):
        try:
            return _download(dataclasses.replace(original, url=url), path)
        except ConnectionError as error:
            problems.append(str(error))
    raise ConnectionError("; ".join(problems))


def _download(original: Original, path: Path) -> Path:
    """The file, once it is whole and its sum agrees.

    Raises:
        Refused: the server sends something else.
        ConnectionError: it sends nothing, or not all.
    """
    import requests
    import tqdm

    logger.info("downloading %s to %s", original.url, path)
    there = path.parent.is_dir()
    try:
        with atomically(path) as partial, requests.Session() as session:
            session.mount("https://", requests.adapters.HTTPAdapter(max_retries=RETRIES))
            session.mount("http://", requests.adapters.HTTPAdapter(max_retries=RETRIES))
            with session.get(original.url, stream=True, timeout=TIMEOUT_SECONDS) as answer:
                answer.raise_for_status()
                total = original.size or int(answer.headers.get("Content-Length", 0)) or None
                # disable=None: no bar where the output is no terminal
                bar = tqdm.tqdm(
                    total=total, unit="B", unit_scale=True, desc=path.name, disable=None
                )
                with bar, partial.open("wb") as file:
                    for chunk in answer.iter_content(CHUNK):
                        file.write(chunk)
                        bar.update(len(chunk))
            checked = verify(original, partial, f"what {original.url} sends")
    except requests.RequestException as error:
        raise ConnectionError(f"cannot download {original.url} ({_trouble(error)})") from error
    finally:
        if not there and path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()
    logger.info("%s: %s", path, checked)
    return path


def _trouble(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError):
        return f"its server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return "no connection"
    return " ".join(str(error).split())[:200]
