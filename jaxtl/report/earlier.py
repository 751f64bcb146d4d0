"""What earlier runs in a directory measured: how much of it counts, and joined with a new one."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from jaxtl.report.summary import Summary, compare


def current(
    old: Summary, new: Summary, outdated: Callable[[str, Mapping[str, Any]], str]
) -> tuple[Summary, list[str]]:
    """What an earlier run measured, without what counts no longer.

    Args:
        old, new: of the same directory.
        outdated: (arm, {field: value} of a point of a sweep, empty for the experiment as it is)
            -> why what was measured there counts no longer; empty where it does.

    Returns:
        the earlier summary, and a line for each arm and reason why some of it is left out.
    """
    places: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    of_all = _incomparable(old, new)

    def remaining(
        arms: Mapping[str, Any], replaced: Collection[str], config: Mapping[str, Any]
    ) -> dict[str, Any]:
        result = {}
        for name, arm in arms.items():
            why = "" if name in replaced else of_all or outdated(name, config)
            if why:
                places.setdefault((name, why), []).append(config)
            else:
                result[name] = arm
        return result

    measured = {_key(point): point["arms"] for point in new.get("sweep", ())}
    result = {**old, "arms": remaining(old["arms"], new["arms"], {})}
    if "sweep" in old:
        points = [
            {**point, "arms": remaining(point["arms"], measured.get(_key(point), ()), fields)}
            for point in old["sweep"]
            for fields in [point["config"]]
        ]
        result["sweep"] = [point for point in points if point["arms"]]
    lines = [
        f"arm {name}{_where(configs)} is left out: {why}" for (name, why), configs in places.items()
    ]
    return result, lines


def _where(configs: Sequence[Mapping[str, Any]]) -> str:
    """` at similarity=0.5`: points of a sweep; empty if the whole arm is among them."""
    points = [", ".join(f"{field}={value}" for field, value in each.items()) for each in configs]
    if "" in points:
        return ""
    more = f" and {len(points) - 3} more points" if len(points) > 4 else ""
    return f" at {'; '.join(points[: 3 if more else 4])}{more}"


def _incomparable(old: Summary, new: Summary) -> str:
    """Why nothing of an earlier run stands beside a new one; empty if it does."""
    if old["seeds"] != new["seeds"]:
        only = " only" if set(old["seeds"]) < set(new["seeds"]) else ""
        return f"it has the seeds {seed_names(old['seeds'])}{only}: run it with these seeds too"
    return ""


def seed_names(seeds: Sequence[int]) -> str:
    """`0-4`, or `0, 3, 7`."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))


def merge(old: Summary, new: Summary) -> Summary:
    """The arms of both, the new ones where both have them, all compared with one baseline.

    Args:
        old: with the seeds of `new`, as `current` leaves it.
    """
    merged = {**new, "arms": old["arms"] | new["arms"]}
    measured = {key for arm in merged["arms"].values() for key in arm["metrics"]}
    directions = {key: way for key, way in old.get("directions", {}).items() if key in measured}
    merged["directions"] = directions | new["directions"]
    if "oracle" in new:
        earlier = {
            name: each for name, each in old.get("oracle", {}).items() if name in old["arms"]
        }
        merged["oracle"] = earlier | new["oracle"]
    points = {_key(point): point for point in old.get("sweep", [])}
    for point in new.get("sweep", []):
        earlier = points[_key(point)]["arms"] if _key(point) in points else {}
        points[_key(point)] = {**point, "arms": earlier | point["arms"]}
    if points:
        merged["sweep"] = list(points.values())
        if "sweep" not in new and "select" in old:
            merged["select"] = old["select"]
    return compare(merged)


def _key(point: Mapping[str, Any]) -> str:
    return json.dumps(point["config"])
