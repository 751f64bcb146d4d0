"""Parameters addressed by path: flatten, match, label, split and join nested dicts.

A path joins the keys of a nested dict with `/`, as in `backbone/conv_0/kernel`. A pattern is a
regular expression that must match the whole path (`re.fullmatch`).
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Tree = Mapping[str, Any]
FROZEN = "frozen"


def flatten(tree: Tree) -> dict[str, Any]:
    """Nested dicts -> {path: leaf}; empty dicts vanish."""
    from flax import traverse_util  # imports JAX, which a mistyped name need not wait for

    return traverse_util.flatten_dict(tree, sep="/")


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{path: leaf} -> nested dicts, the inverse of `flatten`."""
    from flax import traverse_util

    return traverse_util.unflatten_dict(dict(flat), sep="/")


def matches(patterns: Iterable[str], path: str) -> bool:
    """Whether any pattern matches the whole path."""
    return any(re.fullmatch(pattern, path) for pattern in patterns)


def closest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The `count` names of `known` most like `name`, best first."""
    return difflib.get_close_matches(name, sorted(known), count, cutoff=0.3)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One-line message for a name that is not among `known`."""
    known = sorted(known)
    near = closest(name, known, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}.{hint} Known: {', '.join(known) or 'none'}."


def select(patterns: Iterable[str], paths: Iterable[str], what: str = "parameter") -> set[str]:
    """The paths that any pattern matches.

    Raises:
        ValueError: a pattern is not a regular expression or matches no path; every such pattern
            is listed with its closest paths.
    """
    paths = sorted(paths)
    chosen, problems = set(), []
    for pattern in patterns:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            problems.append(f"pattern {pattern!r} is not a regular expression: {error}.")
            continue
        hits = {path for path in paths if compiled.fullmatch(path)}
        if not hits:
            near = ", ".join(closest(pattern, paths)) or ", ".join(paths[:3]) or "there are none"
            problems.append(f"pattern {pattern!r} matched no {what}. Closest paths: {near}.")
        chosen |= hits
    if problems:
        raise ValueError("\n".join(problems))
    return chosen


def label(
    paths: Iterable[str], groups: Mapping[str, Iterable[str]], what: str = "parameter"
) -> dict[str, str]:
    """{path: name of the first group that matches it, or `FROZEN` if none does}.

    A group may itself be called `FROZEN`: what it matches, later groups do not get.

    Raises:
        ValueError: a pattern matches no path, or the groups before took everything of a group.
    """
    paths = list(paths)
    labels: dict[str, str] = {}
    for name, patterns in groups.items():
        taken = [path for path in select(patterns, paths, what) if path not in labels]
        if not taken:
            raise ValueError(
                f"group {name!r} {tuple(patterns)} has no {what} left: "
                "the groups before it match all of its paths."
            )
        labels |= dict.fromkeys(taken, name)
    return {path: labels.get(path, FROZEN) for path in paths}


def split(tree: Tree, chosen: Callable[[str], bool]) -> tuple[dict, dict]:
    """Two disjoint trees: the leaves whose path is chosen, and the others."""
    flat = flatten(tree)
    inside = {path: leaf for path, leaf in flat.items() if chosen(path)}
    outside = {path: leaf for path, leaf in flat.items() if path not in inside}
    return nest(inside), nest(outside)


def join(*trees: Tree) -> dict[str, Any]:
    """The inverse of `split`.

    Raises:
        ValueError: two trees hold the same path.
    """
    joined: dict[str, Any] = {}
    for tree in trees:
        flat = flatten(tree)
        if twice := joined.keys() & flat.keys():
            raise ValueError(f"in more than one tree: {', '.join(sorted(twice))}")
        joined |= flat
    return nest(joined)
