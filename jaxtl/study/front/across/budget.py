"""Whether two finished runs can be compared: what they measured, selected by, and spent.

The rule. Two runs are compared by the same primary metric, in the same direction, on the same test
data, with parameters that the same rule selected. Arms of one name had the same budget: stage by
stage as many steps of as many examples, the same rows for the same seed, the same published
weights. An arm that is compared with one of another name stayed within what the arms of the first
run had: no more examples in its last stage than the longest of them, and no rows or weights that
none of them read.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxtl.plan import Metric
from jaxtl.study.front.across.finished import FinishedRun
from jaxtl.train.store.blocks import Block

DESPITE = ("evaluation", "selection", "steps", "data")
"""Kinds of difference that can be named, to compare nevertheless."""


class Difference(NamedTuple):
    """Something in which a run differs from the first one.

    Attributes:
        kind: one of `DESPITE`; "metric" and "arms" forbid in any case, and "note" forbids nothing.
        line: in words.
        stage: of the run, that it is about, if it is about one.
    """

    kind: str
    line: str
    stage: str = ""


def in_words(differences: Iterable[Difference]) -> list[tuple[str, str]]:
    """(kind, line) of each, what is the same of several stages in one line."""
    stages: dict[tuple[str, str], list[str]] = {}
    for kind, line, stage in differences:
        names = stages.setdefault((kind, line), [])
        if stage not in names:
            names.append(stage)
    lines = []
    for (kind, line), names in stages.items():
        names = [name for name in names if name]
        about = f"stage{'s' if len(names) > 1 else ''} {', '.join(names)}: " if names else ""
        lines.append((kind, about + line))
    return lines


class Stage(NamedTuple):
    """What a stage spent, by its stage.json.

    Attributes:
        steps: of training.
        batch_size: examples a domain and step.
        rows: {what it reads: {seed: digest of the rows}}.
        names: {what it reads: name of the dataset}.
        weights: digest of the published weights that it starts from, if any.
    """

    steps: int
    batch_size: int
    rows: Mapping[str, Mapping[str, str]]
    names: Mapping[str, str]
    weights: str | None

    @property
    def examples(self) -> int:
        return self.steps * self.batch_size


def differences(
    first: FinishedRun, other: FinishedRun, pairs: Sequence[tuple[str, str]]
) -> list[Difference]:
    """In what a run differs from the first one.

    Args:
        pairs: (arm of the other run, arm of the first one) that are to be compared.
    """
    lines = [*_metric(first, other), *_selection(first, other), *_evaluations(first, other)]
    for arm, counterpart in pairs:
        if arm == counterpart:
            lines += _same_budget(first, other, arm)
        else:
            lines += _within_budget(first, other, arm)
    lines += _surroundings(first, other)
    return lines


def _metric(first: FinishedRun, other: FinishedRun) -> Iterator[Difference]:
    if other.primary != first.primary:
        now, before = _in_words(other.primary), _in_words(first.primary)
        yield Difference("metric", f"its primary metric is {now}, there {before}")


def _in_words(metric: Metric) -> str:
    return f"{metric.key} (better {'high' if metric.better == 'max' else 'low'})"


def _selection(first: FinishedRun, other: FinishedRun) -> Iterator[Difference]:
    now, before = other.summary["selection"], first.summary["selection"]
    if now != before:
        yield Difference("selection", f"its parameters are those of the {now}, there {before}")


def _evaluations(first: FinishedRun, other: FinishedRun) -> Iterator[Difference]:
    """What the primary metric is measured on; of a derived metric every evaluation counts."""
    before, now = first.summary["evaluations"], other.summary["evaluations"]
    names = [other.primary.evaluation]
    if names[0] not in {**before, **now}:
        names = list({**before, **now})
    for name in names:
        if name not in before or name not in now:
            place = "there" if name in before else "here"
            yield Difference("evaluation", f"evaluation {name!r} is {place} only")
            continue
        if before[name]["program"] != now[name]["program"]:
            if _versions(first) != _versions(other):
                line = (
                    f"whether evaluation {name!r} measures the same cannot be told: other versions"
                )
                yield Difference("note", line)
            else:
                yield Difference("evaluation", f"evaluation {name!r} measures something else")
        same = _same_rows(before[name]["seeds"], now[name]["seeds"])
        if same is None:
            line = f"evaluation {name!r} draws its data per seed: without common seeds nobody knows"
            yield Difference("note", f"{line} whether they are drawn alike")
        elif not same:
            yield Difference("evaluation", f"evaluation {name!r} reads other data")


def _same_rows(before: Mapping[str, str], now: Mapping[str, str]) -> bool | None:
    """Whether the same seeds read the same rows; None where no seed says."""
    if common := before.keys() & now.keys():
        return all(before[seed] == now[seed] for seed in common)
    if len(set(before.values())) == len(set(now.values())) == 1:  # the same for every seed
        return set(before.values()) == set(now.values())
    return None


NOT_ON_FILE = "what it was trained with is not on file: it came from another run, which is gone"
NO_COMMON_SEEDS = "rows drawn per seed; without common seeds nobody knows whether they are alike"


def _same_budget(first: FinishedRun, other: FinishedRun, arm: str) -> Iterator[Difference]:
    before, now = first.chains[arm], other.chains[arm]
    if len(before) != len(now):
        line = f"arm {arm} has the stages {', '.join(now)}, there {', '.join(before)}"
        yield Difference("steps", line)
        return
    for old_name, name in zip(before, now, strict=True):
        old, new = stage_of(first.blocks[old_name]), stage_of(other.blocks[name])
        if old is None or new is None:
            yield Difference("note", NOT_ON_FILE, name)
            continue
        if old.steps != new.steps:
            yield Difference("steps", f"{new.steps:,} steps, there {old.steps:,}", name)
        if old.batch_size != new.batch_size:
            line = f"batches of {new.batch_size:,} examples, there {old.batch_size:,}"
            yield Difference("steps", line, name)
        yield from _data(name, old, new)
        if old.weights != new.weights:
            yield Difference("data", "other published weights to start from", name)


def _data(name: str, old: Stage, new: Stage) -> Iterator[Difference]:
    for what in dict.fromkeys([*new.rows, *old.rows]):
        if what not in old.rows or what not in new.rows:
            place = "here" if what in new.rows else "there"
            dataset = (new if what in new.rows else old).names[what]
            yield Difference("data", f"reads {dataset} ({what}) {place} only", name)
            continue
        same = _same_rows(old.rows[what], new.rows[what])
        now, before = new.names[what], old.names[what]
        if same is None and now == before:
            yield Difference("note", NO_COMMON_SEEDS, name)
        elif not same:
            rows = f"{now}, there {before}" if now != before else f"other rows of {now}"
            yield Difference("data", f"reads {rows}", name)


def _within_budget(first: FinishedRun, other: FinishedRun, arm: str) -> Iterator[Difference]:
    chain = other.chains[arm]
    stages = {name: stage_of(blocks) for name, blocks in first.blocks.items()}
    on_file = [stage for stage in stages.values() if stage]
    ends = [stages[names[-1]] for names in first.chains.values()]
    most = max((stage.examples for stage in ends if stage), default=0)
    last = stage_of(other.blocks[chain[-1]])
    if last and last.examples > most:
        line = f"{last.examples:,} examples, no arm's last stage there more than {most:,}"
        yield Difference("steps", line, chain[-1])
    for name in chain:
        stage = stage_of(other.blocks[name])
        if stage is None:
            yield Difference("note", NOT_ON_FILE, name)
            continue
        for what, rows in stage.rows.items():
            alike = [
                _same_rows(old, rows)
                for each in on_file
                for old_what, old in each.rows.items()
                if each.names[old_what] == stage.names[what] or old.keys() & rows.keys()
            ]
            if not any(alike):
                kind = "note" if None in alike else "data"
                line = f"reads {stage.names[what]}, rows that no stage there reads"
                yield Difference(kind, NO_COMMON_SEEDS if kind == "note" else line, name)
        if stage.weights and stage.weights not in {each.weights for each in on_file}:
            yield Difference("data", "published weights that no stage there has", name)


def stage_of(blocks: Sequence[Block]) -> Stage | None:
    """What the blocks of a stage spent, of all their seeds; None if there are none."""
    if not blocks:
        return None
    rows: dict[str, dict[str, str]] = {}
    names = {}
    for block in blocks:
        identity = block.record["identity"]
        data = dict(identity["data"])
        if validation := identity["validation"]:
            data |= {f"validation {name}": each for name, each in validation["data"].items()}
        for what, entry in data.items():
            rows.setdefault(what, {}).update(entry["seeds"])
            names[what] = entry["name"]
    weights = identity["weights"] or identity["published"]
    return Stage(identity["steps"], identity["batch_size"], rows, names, weights)


def _versions(run: FinishedRun) -> Any:
    records = [block.record for blocks in run.blocks.values() for block in blocks]
    return records[-1]["made_with"]["versions"] if records else None


def _surroundings(first: FinishedRun, other: FinishedRun) -> Iterator[Difference]:
    """What may change numbers but is no budget."""
    same_name = first.summary["experiment"] == other.summary["experiment"]
    codes = {run.environment.get("code") for run in (first, other)}
    same_file = first.file_digest == other.file_digest or (len(codes) == 1 and None not in codes)
    if same_name and not same_file:
        yield Difference("note", "the experiment's file differs")
    if first.dtype != other.dtype:
        yield Difference("note", f"it computes in {other.dtype}, there in {first.dtype}")
    before, now = first.environment, other.environment
    for what in ("jaxtl", "jax", "flax", "optax", "numpy", "python", "devices"):
        if before.get(what) != now.get(what):
            old, new = (_text(each.get(what)) for each in (before, now))
            yield Difference("note", f"{what} is {new}, there {old}")


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
