"""What can be wrong with an export, as far as it shows without JAX."""

import importlib.util
from pathlib import Path

from jaxtl.paths import unknown

FORMATS = {"safetensors": "safetensors", "stablehlo": "flatbuffers", "peft": "safetensors"}
"""{format: the package that it needs}."""


def check_request(directory: Path, form: str) -> None:
    """Raises ValueError for an unknown format, a missing package or a directory without a run."""
    if form not in FORMATS:
        raise ValueError(unknown("format", form, FORMATS))
    if importlib.util.find_spec(FORMATS[form]) is None:
        raise ValueError(
            f"--format={form} needs the package {FORMATS[form]}: pip install 'jaxtl[export]'"
        )
    check_run(directory)


def check_run(directory: Path) -> None:
    """Raises ValueError if a directory holds no run."""
    if not (directory / "config.json").is_file():
        inside = sorted(path.parent.name for path in directory.glob("*/config.json"))
        hint = f"; it holds the runs {', '.join(inside)}" if inside else ""
        raise ValueError(
            f"{directory} holds no run; expected a directory <workdir>/<experiment> with "
            f"config.json in it{hint}"
        )
