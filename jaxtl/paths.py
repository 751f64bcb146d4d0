"""Parameters addressed by path: flatten, match, label, split and join nested dicts.

A path joins the keys of a nested dict with `/`, as in `backbone/conv_0/kernel`. A pattern is a
regular expression that must match the whole path (`re.fullmatch`).
"""

import difflib
import heapq
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax

Tree = Mapping[str, Any]
FROZEN = "frozen"
LIKE = 0.4
"""Names that are less alike are not suggested."""
SCORED = 300
"""Of more names, those that share most pairs of letters are scored."""
LISTED = 60
"""Names that a message lists at most."""


def flatten(tree: Tree) -> dict[str, Any]:
    """Nested dicts -> {path: leaf}; empty dicts vanish."""
    from flax import traverse_util  # imports JAX, which a mistyped name need not wait for

    return traverse_util.flatten_dict(tree, sep="/")


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{path: leaf} -> nested dicts, the inverse of `flatten`."""
    from flax import traverse_util

    return traverse_util.unflatten_dict(dict(flat), sep="/")


def key(rng: "jax.Array", path: str) -> "jax.Array":
    """A PRNG key that depends on the rng and on a path, or a name, only."""
    import jax

    return jax.random.fold_in(rng, zlib.crc32(path.encode()))


def matches(patterns: Iterable[str], path: str) -> bool:
    """Whether any pattern matches the whole path."""
    return any(re.fullmatch(pattern, path) for pattern in patterns)


def closest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` names of `names` most like `name`, best first, if any is like it at all.

    Words count as much as letters: `target/acc` is like `target/accuracy`, `lr` like
    `learning_rate`, `macro_f1` like `f1_macro`.
    """
    name, names = str(name), {str(candidate) for candidate in names}
    if len(names) > SCORED:
        pairs = set(itertools.pairwise(name.lower()))
        names = heapq.nsmallest(
            SCORED, names, key=lambda k: (-len(pairs & set(itertools.pairwise(k.lower()))), k)
        )
    scores = sorted((-_likeness(name, candidate), candidate) for candidate in names)
    return [candidate for score, candidate in scores[:count] if -score >= LIKE]


def unknown(kind: str, name: str, names: Iterable[str], others: Iterable[str] = ()) -> str:
    """One-line message for a name that is not among `names`.

    Args:
        others: names of something else that are not listed, but may have been meant: the one
            whose last part is the same surely was.
    """
    names, others = sorted(map(str, names)), list(others)
    same = [other for other in others if _last(other) == _last(str(name))]
    near = same if len(same) == 1 else closest(name, [*names, *others], 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(names[:LISTED]) or "none"
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return f"unknown {kind} {name!r}.{hint} Known: {listed}{more}."


def _last(name: str) -> str:
    """`--config.rate`, `--rate` -> `rate`."""
    return name.rpartition(".")[2].lstrip("-")


def _likeness(name: str, candidate: str) -> float:
    """From 0 to 1: how many letters and words two names share, half of it by what comes first."""
    if "/" in name and "/" in candidate:
        first, other = name.partition("/")[0], candidate.partition("/")[0]
        return (_shared(name, candidate) + _shared(first, other)) / 2
    return _shared(name, candidate)


def _shared(name: str, candidate: str) -> float:
    given, others = _words(name), _words(candidate)
    if given and "".join(given) == "".join(others):
        return 1.0
    letters = difflib.SequenceMatcher(None, name.lower(), candidate.lower()).ratio()
    if not given or not others:
        return letters
    initials = "".join(word[0] for word in others)
    hits = [
        max(0.8 * (len(word) > 1 and word in initials), *(_alike(word, other) for other in others))
        for word in given
    ]
    back = [max(_alike(word, other) for other in given) for word in others]
    return 0.4 * letters + 0.4 * sum(hits) / len(hits) + 0.2 * sum(back) / len(back)


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower())


def _alike(word: str, other: str) -> float:
    """From 0 to 1: 0.9 for the beginning of a word, 0.7 for letters of it in their order."""
    short, long = sorted((word, other), key=len)
    if len(short) > 1 and long.startswith(short):
        return 1.0 if short == long else 0.9
    letters = iter(long)
    abbreviated = short[0] == long[0] and all(letter in letters for letter in short)
    return max(0.7 * abbreviated, difflib.SequenceMatcher(None, word, other).ratio())


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


def label_tree(tree: Any, groups: Mapping[str, Iterable[str]], what: str = "parameter") -> Any:
    """The tree with the name of its group in place of each leaf, for `optax.multi_transform`.

    Args:
        tree: any pytree, those of NNX, Equinox and Haiku too; a path joins keys, attributes and
            numbers with `/`.
        groups: {name: path patterns}, the first that matches wins; the rest is `FROZEN`.

    Raises:
        ValueError: as `label`.
    """
    import jax

    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    labels = label(paths, groups, what)
    return structure.unflatten(labels[path] for path in paths)


def split(tree: Tree, chosen: Callable[[str], bool] | Iterable[str]) -> tuple[dict, dict]:
    """Two disjoint trees: the leaves whose path is chosen, and the others.

    Args:
        chosen: path -> whether it is; or path patterns, as `select` reads them.

    Raises:
        ValueError: as `select`.
    """
    flat = flatten(tree)
    chosen = chosen if callable(chosen) else select(chosen, flat).__contains__
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
