"""`--collect=WORKDIR`: measured runs as experiments/results.json and experiments/README.md."""

import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtl.experiment_file import (
    FOLDER,
    code_digest,
    docstring,
    known_experiments,
    module_of,
    read_config,
    result_line,
    root_of,
)
from jaxtl.fields import get_field, json_values
from jaxtl.files import Damaged, digest, read_json, write_text
from jaxtl.measure.results import reason
from jaxtl.models.programs import cores
from jaxtl.report import wording
from jaxtl.report.across.results import Entry, entry_of, json_text, summary_of
from jaxtl.report.across.results_page import DATA, MADE, Listed, results_page
from jaxtl.study.front.across.finished import FinishedRun, flat, read_run, runs_in
from jaxtl.train.store.identity import file_digest

VERSIONS = ("jaxtl", "jax", "flax", "optax", "numpy", "python")
ABOUT = ("command", "flags", "data", "hardware", "versions", "train_seconds", "file")
"""What an entry has besides its numbers."""
SEEDS = tuple(range(5))
"""Those of a command that names none."""
LEFT_OUT = {
    *("--experiment", "--workdir", "--resume", "--noresume", "--overwrite", "--verbose", "--seeds"),
    *("--arms", "--run.data_dir", "--run.compilation_cache", "--run.tensorboard"),
    *("--run.feature_folder", "--run.feature_folder_mb"),
    *("--run.checkpoint_minutes", "--run.checkpoint_every", "--run.log_every", "--distributed"),
}
"""Flags of a command that say where and how, not what; or that are written anew."""
CHANGED = "Measured with another version of its file."
NOT_KNOWN = "Whether its file has changed since is not known."


def collect(workdir: Path) -> list[str]:
    """Writes the finished runs in a folder into experiments/results.json and README.md.

    Entries of runs that are not there stay. The same runs give the same bytes.

    Args:
        workdir: what holds runs, in whatever depth.

    Returns:
        what was done, and what was left out and why, a line each.

    Raises:
        ValueError: no finished run of an experiment of the folder is there, or what is to be
            written was not made here.
        NotWritten: a file cannot be written.
    """
    names = known_experiments()
    data, page = FOLDER / DATA, FOLDER / "README.md"
    _check_ours(page)
    entries = _stored(data)
    lines: list[str] = []
    fresh = _fresh(workdir, names, lines)
    if not fresh:
        hint = "\n".join(["", *lines])
        raise ValueError(f"{workdir} holds no finished run of an experiment of {FOLDER}/{hint}")
    entries = {key: entry for key, entry in entries.items() if key not in fresh} | fresh
    remarks = {key: _remark(entry, names) for key, entry in entries.items()}
    current = {entry["experiment"] for key, entry in entries.items() if not remarks[key]}
    for key, entry in list(entries.items()):
        if remarks[key] == CHANGED and entry["experiment"] in current:
            del entries[key]
            lines.append(f"{entry['experiment']}: an entry of another version of its file is gone")
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1]["experiment"], item[0])))
    for entry in ordered.values():
        if entry["experiment"] in names:
            entry["command"] = _command(entry)
    listed = [_listed(name, ordered, remarks) for name in names]
    gone = dict.fromkeys(e["experiment"] for e in ordered.values() if e["experiment"] not in names)
    write_text(data, json_text(list(ordered.values())))
    write_text(page, results_page(listed, list(ordered.values()), list(gone)))
    missing = [each.name for each in listed if not each.entries]
    lines += [f"{each['experiment']}: collected" for each in fresh.values()]
    if missing:
        lines.append(f"no entry, so that its docstring stands in: {', '.join(missing)}")
    lines += [f"{name}: there is no such experiment any more; its entry stays" for name in gone]
    return [*lines, f"results: {page}, {data}"]


def _check_ours(page: Path) -> None:
    """Raises ValueError if README.md is somebody's own."""
    if page.exists() and not page.read_text(encoding="utf-8", errors="replace").startswith(MADE):
        raise ValueError(
            f"{page} was not made by --collect, which would replace it; move it away, or begin it "
            f"with the line {MADE}"
        )


def _stored(data: Path) -> dict[str, Entry]:
    """{key: entry} of results.json."""
    remedy = "put a copy of it back, or remove it and collect all runs again"
    record = read_json(data, {"experiments": list}, remedy) or {"experiments": []}
    for number, entry in enumerate(record["experiments"], 1):
        try:
            summary_of(entry), [entry[key] for key in ABOUT]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Damaged(
                f"{data} is damaged: entry {number}: {reason(error)}; {remedy}"
            ) from error
    return {_key(entry): entry for entry in record["experiments"]}


def _key(entry: Mapping[str, Any]) -> str:
    """What makes an entry another one: the experiment and its config."""
    return f"{entry['experiment']} {digest(entry['config'])}"


def _fresh(workdir: Path, names: Sequence[str], lines: list[str]) -> dict[str, Entry]:
    """{key: entry} of the runs in a folder; what is left out goes to `lines`.

    Raises:
        ValueError: two of them are of one experiment and config.
    """
    if not workdir.is_dir():
        raise ValueError(f"--collect={workdir}: there is no such folder")
    fresh: dict[str, Entry] = {}
    places: dict[str, Path] = {}
    twice = []
    for directory in runs_in(workdir):
        try:
            run = read_run(directory)
        except ValueError as error:
            lines.append(f"{directory} is left out: {'; '.join(str(error).splitlines())}")
            continue
        name = run.summary["experiment"]
        if name not in names:
            lines.append(f"{directory} is left out: there is no {FOLDER / name}.py")
            continue
        entry = entry_of(run.summary, _about(run))
        key = _key(entry)
        if key in fresh:
            twice.append(f"{places[key]} and {directory} are both of {name} with one config")
        fresh[key], places[key] = entry, directory
    if twice:
        raise ValueError("\n".join([*twice, "move away those that are not to be published"]))
    return fresh


def _about(run: FinishedRun) -> dict[str, Any]:
    """What else an entry says than its numbers."""
    facts = run.environment
    records = [block.record for block in _all_blocks(run)]
    names = [entry["name"] for record in records for entry in record["identity"]["data"].values()]
    names += _validation_names(records)
    seconds = sum(record.get("train_seconds") or 0.0 for record in records)
    return {
        "command": "",  # written anew each time
        "flags": _flags(run),
        "data": sorted({re.split(r"[.\[]", name)[0] for name in names}),
        "hardware": {
            "devices": facts.get("devices", []),
            "cores": facts.get("cores") or _cores_here(facts),
            "platform": facts.get("platform"),
        },
        "versions": {name: facts[name] for name in VERSIONS if name in facts},
        "commit": facts.get("git_commit"),
        "train_seconds": float(f"{seconds:.3g}"),
        "file": {"digest": run.file_digest, "code": _measured_code(run)},
    }


def _all_blocks(run: FinishedRun) -> list[Any]:
    """The blocks of the run and of the points of its sweep."""
    from jaxtl.train.store.blocks import blocks_of

    folders = sorted(run.directory.glob("sweep/*/stages/*"))
    swept = [block for folder in folders for block in blocks_of(folder)]
    return [*(block for blocks in run.blocks.values() for block in blocks), *swept]


def _validation_names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    validations = [record["identity"]["validation"] for record in records]
    return [each["name"] for v in validations if v for each in v["data"].values()]


def _cores_here(facts: Mapping[str, Any]) -> int | None:
    """Cores of this machine if a run that does not say was surely of it; else None."""
    same = facts.get("platform") == platform.platform()
    if same and Path(str(facts.get("folder", ""))).is_dir():
        return cores()
    return None


def _measured_code(run: FinishedRun) -> str | None:
    """`code_digest` of the file that a run was made with; None if that is nowhere to be found."""
    if code := run.environment.get("code"):
        return code
    name = run.summary["experiment"]
    named = Path(str(run.environment.get("file") or FOLDER / f"{name}.py"))
    folder = Path(str(run.environment.get("folder", "")))
    for file in (FOLDER / f"{name}.py", folder / named):
        if file.is_file() and file_digest(file) == run.file_digest:
            return code_digest(file.read_bytes())
    return next(_codes_in_history(name, run.file_digest), None)


def _codes_in_history(name: str, wanted: str) -> Iterator[str]:
    """`code_digest` of the version of a file in git that has a digest."""
    import hashlib

    path = (FOLDER / f"{name}.py").as_posix()
    for commit in _git("log", "--all", "--format=%H", "--", path).decode().split():
        source = _git("show", f"{commit}:{path}")
        if hashlib.sha256(source).hexdigest()[:16] == wanted:
            yield code_digest(source)


def _git(*args: str) -> bytes:
    try:
        done = subprocess.run(["git", *args], capture_output=True, check=False)
    except OSError:
        return b""
    return done.stdout if done.returncode == 0 else b""


def _remark(entry: Entry, names: Sequence[str]) -> str:
    """What is to be said of an entry's file; empty where it is the one that is there."""
    if entry["experiment"] not in names:
        return ""
    file, measured = FOLDER / f"{entry['experiment']}.py", entry["file"]
    if measured["digest"] == file_digest(file):
        return ""
    if measured["code"] is None:
        return NOT_KNOWN
    return "" if measured["code"] == code_digest(file.read_bytes()) else CHANGED


def _flags(run: FinishedRun) -> list[str]:
    """The flags of a run's command that say what it is, apart from its config."""
    command = str(run.environment.get("command", ""))
    try:
        words = shlex.split(command)[1:]
    except ValueError:  # a quotation without end
        words = []
    flags, arms = [], ""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if not word.startswith("--"):
            continue
        name, equals, value = word.partition("=")
        if not equals and following and not following.startswith("--"):
            value = following
        if name == "--arms":
            arms = value
        if name not in LEFT_OUT and not name.startswith("--config."):
            flags.append(f"{name}={value}" if value else name)
    if arms and arms != "all":
        flags.append(f"--arms={','.join(run.summary['arms'])}")
    elif arms:
        flags.append("--arms=all")
    if tuple(run.seeds) != SEEDS:
        flags.append(wording.seeds_flag(run.seeds, len(run.seeds)))
    return flags


def _command(entry: Entry) -> str:
    """A command that measures an entry with the file that is there now."""
    file = FOLDER / f"{entry['experiment']}.py"
    sys.path[:0] = [place for place in [str(root_of(file))] if place not in sys.path]
    config = read_config(module_of(file))
    defaults, words = flat(json_values(config)), [f"--experiment={entry['experiment']}"]
    for field, value in flat(entry["config"]).items():
        if field in defaults and defaults[field] != value:
            # Of JSON tuples come as lists, which a field of tuples does not take.
            is_tuple = isinstance(get_field(config, field), tuple)
            words.append(f"--config.{field}={tuple(value) if is_tuple else value}")
    return shlex.join(["python", "launch.py", *words, *entry["flags"]])


def _listed(name: str, entries: Mapping[str, Entry], remarks: Mapping[str, str]) -> Listed:
    text = docstring(FOLDER / f"{name}.py")
    mine = {
        index: remarks[key]
        for index, (key, entry) in enumerate(entries.items())
        if entry["experiment"] == name
    }
    question = text.split("\n\n")[0].replace("\n", " ")
    return Listed(name, question, result_line(text), mine)
