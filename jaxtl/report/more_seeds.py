"""The command that adds seeds to a run."""

import itertools
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

REPLACED = ("--seeds", "--arms", "--overwrite")  # flags with a value
SWITCHES = ("--resume", "--noresume")  # without this, the command goes on with what is there


def flag(seeds: Sequence[int], count: int) -> str:
    """`--seeds=14`; where they are a list, such as 3, 5, 9, those and the smallest others."""
    if list(seeds) == list(range(len(seeds))):
        return f"--seeds={count}"
    others = (seed for seed in itertools.count() if seed not in set(seeds))
    added = itertools.islice(others, max(0, count - len(seeds)))
    return f"--seeds={','.join(map(str, [*seeds, *added]))}"


def wanted(summary: Mapping[str, Any]) -> int | None:
    """How many seeds would decide the undecided arm that needs fewest; None if none would."""
    numbers = [arm.get("seeds_to_decide") for arm in summary["arms"].values()]
    return min(filter(None, numbers), default=None)


def command(launch: str, arms: Collection[str], seeds: Sequence[int], count: int) -> str:
    """A launch command with another number of seeds; the flag alone if it launches no experiment.

    It names all arms that are compared, if any were named, and overwrites nothing.

    Args:
        launch: as a shell takes it.
        arms: those of the report.
        seeds: of the report.
        count: of seeds.
    """
    words = _words(launch)
    if not any(word.startswith("--experiment") for word in words):
        return flag(seeds, count)
    rest, named = [], False
    for word, before in zip(words, ["", *words], strict=False):
        name, _, value = word.partition("=")
        if before in REPLACED:  # `--seeds 5`
            name, value = before, word
        named |= name == "--arms" and value not in ("", "all")
        if name not in (*REPLACED, *SWITCHES):
            rest.append(word)
    if rest[0].endswith(".py"):
        rest.insert(0, "python")
    chosen = [f"--arms={','.join(arms)}"] if named else []
    return shlex.join([*rest, *chosen, flag(seeds, count)])


def _words(launch: str) -> list[str]:
    try:
        return shlex.split(launch)
    except ValueError:  # a quotation without end
        return []
