"""Numbers and verdicts as text, from a summary."""

import ast
import itertools
import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from jaxtl.measure.verdict import FEWEST_VALUES, MOST_SEEDS, distinct, estimate
from jaxtl.plan import key_parts
from jaxtl.report.summary import primary_metric

NOTHING = "-"
CALL = "jaxtl.run("
"""How a launch begins that is no command but Python."""
LONGEST_FLAG = 40
"""Letters of a flag in a sentence; the page has longer ones."""
REPLACED = ("--seeds", "--arms", "--overwrite")
STARTING_ANEW = ("--resume", "--noresume")
"""Flags that a command that adds seeds does not take over from another; the first have a value."""
FRACTIONS = {
    *("accuracy", "balanced_accuracy", "f1_macro", "f1_micro", "f1_weighted", "exact_match"),
    *("ece", "hos", "known_accuracy", "unknown_accuracy"),
}
"""Those of our own metrics that lie between 0 and 1."""


def number(value: float | None, signed: bool = False) -> str:
    """A number with at least three significant decimals; a dash for None."""
    return interval({"mean": value, "ci95": None}, signed)


def limits(metric: str) -> tuple[float, float] | None:
    """Between which ends the metric of a key lies; None where that is not known."""
    return (0.0, 1.0) if key_parts(metric)[1] in FRACTIONS else None


def interval(
    statistics: Mapping[str, Any] | None,
    signed: bool = False,
    limits: tuple[float, float] | None = None,
) -> str:
    """`0.930 [0.912, 0.948]`: mean and 95% interval, as precise as the interval is narrow.

    An end that lies where no value can is said in words: `0.980 [0.955, beyond 1]`.
    """
    mean = statistics and statistics["mean"]
    if mean is None:
        return NOTHING
    ends = statistics["ci95"] or ()
    style = _style(mean, ends, exact=limits is None)
    text = f"{mean:{'+' if signed else ''}{style}}"
    if not ends:
        return text
    low, high = limits if limits and limits[0] <= mean <= limits[1] else (-math.inf, math.inf)
    start = f"{ends[0]:{style}}" if ends[0] >= low else f"below {low:g}"
    end = f"{ends[1]:{style}}" if ends[1] <= high else f"beyond {high:g}"
    return f"{text} [{start}, {end}]"


def seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def adding(count: int) -> str:
    """What the command of `more_seeds` does."""
    return f"To go on to {count} seeds, where what is trained is not trained again"


def compared(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The arms that are not the baseline, but for those that do not train the primary task."""
    silent = {summary["baseline"], *without_primary(summary)}
    return {name: arm for name, arm in summary["arms"].items() if name not in silent}


def without_primary(summary: Mapping[str, Any]) -> list[str]:
    """Names of the arms that were measured, and not by the primary metric."""
    key = summary["primary"]["metric"]
    return [n for n, arm in summary["arms"].items() if arm["metrics"] and key not in arm["metrics"]]


def point(config: Mapping[str, Any]) -> str:
    """`learning_rate=0.001, noise=0.5`: a point of a sweep."""
    return ", ".join(f"{field}={value}" for field, value in config.items())


def picking(summary: Mapping[str, Any]) -> str:
    """How the points of a sweep were picked, or why none was."""
    if not summary.get("tuned"):
        return (
            "No point is picked: the experiment names no validation metric (select), and test data "
            "pick nothing."
        )
    return (
        f"Each arm at the point with its best {summary['select']['metric']}, mean over the seeds; "
        "what it measures on test data had no part in that."
    )


def over_points(summary: Mapping[str, Any]) -> str:
    """What the numbers over all points of a sweep are."""
    fields = ", ".join(summary["sweep"][0]["config"])
    return (
        f"Over the {len(summary['sweep'])} values of {fields}: mean and 95% interval over them of "
        "the means over seeds, gains paired by value"
    )


def held_out(summary: Mapping[str, Any], rule: str, compared: bool = False) -> str:
    """What a table of held-out domains holds, and how other fields were picked.

    Args:
        compared: it stands beside another, by which one goes.
    """
    arms = summary["held_out"]["rules"][rule]
    picked = {p for arm in arms.values() for p in map(point, arm["picked"].values()) if p}
    count = len(next(iter(arms.values()))["domains"])
    text = (
        f"Each of {count} domains held out: mean over them, and the worst, with 95% interval over "
        "seeds"
    )
    if picked:
        text += f"; other fields picked by: {rule}"
    return text + (", for comparison" if compared else "")


def secondary(summary: Mapping[str, Any], limit: int) -> list[str]:
    """Up to `limit` metrics to show beside the primary one.

    First what else is measured on the primary evaluation (what is better when smaller last), then
    the primary metric on other evaluations, then anything.
    """
    primary, directions = primary_metric(summary), summary["directions"]
    metrics = dict.fromkeys(m for arm in summary["arms"].values() for m in arm["metrics"])
    metrics.pop(primary.key, None)

    def rank(key: str) -> int:
        evaluation, name = key_parts(key)
        if evaluation == primary.evaluation:
            return 2 if directions.get(key) == "min" else 0
        return 1 if name == primary.name else 3

    return sorted(metrics, key=rank)[:limit]


def answer(summary: Mapping[str, Any]) -> str:
    """The answer to "did the transfer help?" in a line: which arms did, did not, may have."""
    arms, baseline = compared(summary), summary["baseline"]
    if baseline not in summary["arms"]:
        return f"Not known: the baseline {baseline} has not been run."
    if not arms:
        return f"Not known: only the baseline {baseline} has been run."
    groups = [
        ("positive", "Yes: {} better than " + baseline + "."),
        ("negative", "No: {} worse than " + baseline + "."),
        ("undecided", "Undecided: {}."),
    ]
    sentences = []
    for outcome, text in groups:
        names = [name for name, arm in arms.items() if arm["verdict"] == outcome]
        if names:
            verb = "" if outcome == "undecided" else " is" if len(names) == 1 else " are"
            sentences.append(text.format(enumeration(names) + verb))
    if names := without_primary(summary):
        sentences.append(f"Without {summary['primary']['metric']}: {enumeration(names)}.")
    return " ".join(sentences)


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """What each arm showed, one sentence an arm; none for the baseline."""
    return [f"{name}: {_finding(summary, name, arm)}" for name, arm in compared(summary).items()]


def _finding(summary: Mapping[str, Any], name: str, arm: Mapping[str, Any]) -> str:
    metric, baseline = summary["primary"]["metric"], summary["baseline"]
    if baseline not in summary["arms"]:
        return f"undecided, the baseline {baseline} has not been run."
    gain = arm["gain"].get(metric)
    pairs = sum(value is not None for value in gain["per_seed"]) if gain else 0
    if not pairs:
        return f"undecided, no seed has {metric} both here and for {baseline}."
    test = ", paired t" if gain["ci95"] else ""
    outcome = f"{_change(gain, summary)} ({seeds(pairs)}{test})"
    sides = (arm, summary["arms"][baseline])
    failed = {failure["seed"] for side in sides for failure in side.get("failed_seeds", ())}
    omission = f"; left out for want of a finite value: {seed_names(failed)}" if failed else ""
    if arm["verdict"] != "undecided":
        return f"{arm['verdict']} transfer, {outcome}{omission}."
    why = _doubt(gain["per_seed"], *(side["metrics"][metric]["per_seed"] for side in sides))
    return f"undecided, {outcome}: {why}{omission}{_remedy(summary, arm, gain)}."


def _remedy(summary: Mapping[str, Any], arm: Mapping[str, Any], gain: Mapping[str, Any]) -> str:
    """How many seeds would decide, and the flag that adds them, as the end of a sentence."""
    if "seeds_to_decide" not in arm:  # an earlier version wrote the summary
        return ""
    if count := arm["seeds_to_decide"]:
        flag = seeds_flag(summary["seeds"], count)
        text = f"; about {count} seeds would decide"
        return f"{text} ({flag})" if len(flag) <= LONGEST_FLAG else text
    low, high = gain["ci95"] or (math.nan, math.nan)
    return f"; not even {MOST_SEEDS:,} seeds would decide" if low <= 0 <= high else ""


def seeds_flag(seeds: Sequence[int], count: int) -> str:
    """`--seeds=14`; where they are a list, such as 3, 5, 9, those and the smallest others."""
    if list(seeds) == list(range(len(seeds))):
        return f"--seeds={count}"
    others = (seed for seed in itertools.count() if seed not in set(seeds))
    added = itertools.islice(others, max(0, count - len(seeds)))
    return f"--seeds={','.join(map(str, [*seeds, *added]))}"


def wanted_seeds(summary: Mapping[str, Any]) -> int | None:
    """How many seeds would decide the undecided arm that needs fewest; None if none would."""
    numbers = [arm.get("seeds_to_decide") for arm in summary["arms"].values()]
    return min(filter(None, numbers), default=None)


def command_with_seeds(launch: str, arms: Collection[str], seeds: Sequence[int], count: int) -> str:
    """A launch command with another number of seeds; the flag alone if it launches no experiment.

    It names all arms that are compared, if any were named, and overwrites nothing.

    Args:
        launch: as a shell takes it.
        arms: those of the report.
        seeds: of the report.
        count: of seeds.
    """
    if launch.startswith(CALL):
        return _call_with_seeds(launch, arms, seeds, count)
    words = _words(launch)
    if not any(word.startswith("--experiment") for word in words):
        return seeds_flag(seeds, count)
    rest, named = [], False
    for word, before in zip(words, ["", *words], strict=False):
        name, _, value = word.partition("=")
        if before in REPLACED:  # `--seeds 5`
            name, value = before, word
        named |= name == "--arms" and value not in ("", "all")
        if name not in (*REPLACED, *STARTING_ANEW):
            rest.append(word)
    if rest[0].endswith(".py"):
        rest.insert(0, "python")
    chosen = [f"--arms={','.join(arms)}"] if named else []
    return shlex.join([*rest, *chosen, seeds_flag(seeds, count)])


def _call_with_seeds(launch: str, arms: Collection[str], seeds: Sequence[int], count: int) -> str:
    """A call of `jaxtl.run` with another number of seeds; else as `command_with_seeds`."""
    flag = seeds_flag(seeds, count).partition("=")[2]
    try:
        call = ast.parse(launch, mode="eval").body
    except SyntaxError:  # a value of the config that is not written as Python
        return f"seeds={flag}"
    changed = {"seeds": [*map(int, flag.split(","))] if "," in flag else int(flag)}
    if any(keyword.arg == "arms" for keyword in call.keywords):
        changed["arms"] = list(arms)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    given |= {name: repr(value) for name, value in changed.items()}
    first = ast.unparse(call.args[0])
    rest = [f"{name}={text}" for name, text in given.items() if name not in ("overwrite", "resume")]
    return f"{CALL}{', '.join([first, *rest])})"


def _words(launch: str) -> list[str]:
    try:
        return shlex.split(launch)
    except ValueError:  # a quotation without end
        return []


def _doubt(gain: Sequence[float | None], *metrics: Sequence[float | None]) -> str:
    """Why gains do not decide; None is no number."""
    gain, *metrics = (np.array(values, np.float64) for values in (gain, *metrics))
    count, different = int(np.isfinite(gain).sum()), distinct(gain, *metrics)
    if count == 1:
        return "one seed gives no interval"
    if different == 1:
        return "the same gain in every seed, too few distinct values to judge"
    low, high = estimate(gain)[2:]
    if low <= 0 <= high:
        return "the interval contains 0"
    return f"{different} distinct gains in {count} seeds, {FEWEST_VALUES} are needed to judge"


def _change(gain: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    primary, baseline = primary_metric(summary), summary["baseline"]
    metric = primary.key
    if primary.better == "max":
        return f"{interval(gain, signed=True)} {metric} over {baseline}"
    if gain["mean"] >= 0:
        return f"{metric} lower by {interval(gain)} than {baseline}"
    ends = gain["ci95"] and [-gain["ci95"][1], -gain["ci95"][0]]
    return f"{metric} higher by {interval({'mean': -gain['mean'], 'ci95': ends})} than {baseline}"


def enumeration(names: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def seed_names(values: Collection[int]) -> str:
    """`seed 3`, or `seeds 3, 5`."""
    return f"seed{'s' if len(values) > 1 else ''} {', '.join(map(str, sorted(values)))}"


def _style(mean: float, ends: Sequence[float], exact: bool) -> str:
    """Format with three significant decimals, more where the interval is narrow.

    Args:
        mean, ends: the numbers; no ends where there is no interval.
        exact: as many as the smaller end needs, too, so that one sees on which side of 0 it lies.
    """
    largest = max(abs(value) for value in (mean, *ends))
    if 0 < largest < 1e-4 or largest >= 1e7:
        return ".2e"
    details = [ends[1] - ends[0], *(map(abs, ends) if exact else ())] if ends else []
    finest = min((value for value in details if value > 1e-9 * largest), default=1.0)
    whole = math.floor(math.log10(largest)) if largest >= 1 else 0
    return f".{min(6, max(3 - whole, -math.floor(math.log10(finest)), 0))}f"
