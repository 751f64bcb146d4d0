"""Domains left out of training, one after the other: what arms reach on the average of them.

At a point of a sweep the held-out domains are named by a field of the config, "a" or, two at once,
"a+b". Other fields may vary too; then a rule picks their values, for each arm and held-out domain.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxtl.plan import Metric

JOIN = "+"
TRAINING, CROSS, ORACLE = "training domains", "leave one domain out", "oracle (test labels)"
AS_TRAINED = "as trained"
"""The one rule where nothing is to be picked."""

Point = Mapping[str, Any]
Others = tuple[tuple[str, Any], ...]
"""The values of the other fields at a point."""
Score = Callable[[str, str, Others, Point], float]
"""(arm, held-out domain, other fields, point) -> what a rule goes by, better when larger."""


class Chosen(NamedTuple):
    """One arm by one rule.

    Attributes:
        domains: {held-out domain: [seeds] of the primary metric}.
        picked: {held-out domain: {field: value} of the other fields}.
    """

    domains: Mapping[str, np.ndarray]
    picked: Mapping[str, Mapping[str, Any]]


def held_out_domains(value: str) -> list[str]:
    """The names in "a" or "a+b"."""
    return value.split(JOIN)


def by_rules(
    points: Sequence[Point], field: str, primary: Metric, select: Metric | None, oracle: bool
) -> dict[str, dict[str, Chosen]]:
    """{rule: {arm: what it reaches on each domain held out alone}}, the rule to go by first.

    - "training domains": the point with the best `select`, a metric of validation data of the
      domains that train.
    - "leave one domain out": the point with the best mean over the other domains d of the primary
      metric's name on d, where d was held out as well (Gulrajani & Lopez-Paz, "In Search of Lost
      Domain Generalization", 2021, arXiv:2007.01434, Section 3.2; they pick for each trial, and
      here one point is picked for all seeds). Needs every pair of domains among the points.
    - "oracle": the point with the best primary metric itself; decides nothing.

    An arm that lacks a domain is left out. Empty where fewer than two domains are held out.
    """
    single: dict[str, dict[Others, Point]] = {}
    double: dict[frozenset[str], dict[Others, Point]] = {}
    for point in (point for point in points if field in point["config"]):
        config = dict(point["config"])
        names = held_out_domains(config.pop(field))
        place = single.setdefault(names[0], {}) if len(names) == 1 else None
        place = double.setdefault(frozenset(names), {}) if place is None else place
        place[tuple(config.items())] = point
    if len(single) < 2:
        return {}

    def measured(point: Point | None, arm: str, key: str) -> float:
        entry = point["arms"].get(arm, {}) if point else {}
        mean = entry.get("metrics", {}).get(key, {}).get("mean")
        return np.nan if mean is None else mean

    def on_others(arm: str, domain: str, others: Others) -> float:
        points = {
            other: double.get(frozenset((domain, other)), {}).get(others)
            for other in single
            if other != domain
        }
        key = primary.name
        return np.mean([measured(point, arm, f"{d}/{key}") for d, point in points.items()])

    rules: dict[str, Score] = {}
    if select is not None:
        rules[TRAINING] = lambda arm, domain, others, point: (
            select.sign * measured(point, arm, select.key)
        )
    if all(frozenset(pair) in double for pair in itertools.combinations(single, 2)):
        rules[CROSS] = lambda arm, domain, others, point: (
            primary.sign * on_others(arm, domain, others)
        )
    if not rules and all(len(values) == 1 for values in single.values()):
        rules[AS_TRAINED] = lambda arm, domain, others, point: 0.0
    if oracle:
        rules[ORACLE] = lambda arm, domain, others, point: (
            primary.sign * measured(point, arm, primary.key)
        )
    arms = dict.fromkeys(arm for point in points for arm in point["arms"])
    result = {}
    for rule, score in rules.items():
        chosen = {arm: _choose(arm, single, primary.key, score) for arm in arms}
        result[rule] = {arm: choice for arm, choice in chosen.items() if choice is not None}
    return {rule: chosen for rule, chosen in result.items() if chosen}


def _choose(
    arm: str, single: Mapping[str, Mapping[Others, Point]], key: str, score: Score
) -> Chosen | None:
    """The point with the best score for each held-out domain; None if one has none.

    Args:
        single: {held-out domain: {other fields: point}}.
        key: of the primary metric.
    """
    domains, picked = {}, {}
    for domain, candidates in single.items():
        scores = {others: score(arm, domain, others, point) for others, point in candidates.items()}
        scores = {others: value for others, value in scores.items() if np.isfinite(value)}
        if not scores:
            return None
        others = max(scores, key=scores.__getitem__)
        entry = candidates[others]["arms"].get(arm, {}).get("metrics", {})
        if key not in entry:
            return None
        domains[domain] = np.array(entry[key]["per_seed"], np.float64)
        picked[domain] = dict(others)
    return Chosen(domains, picked)
