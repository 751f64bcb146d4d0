"""Domains left out one after the other: what each rule picks, by hand."""

import numpy as np
import pytest

from jaxtl.plan import maximize, minimize
from jaxtl.report.held_out import AS_TRAINED, CROSS, ORACLE, TRAINING, by_rules

PRIMARY = maximize("held_out", "accuracy")
SELECT = maximize("validation", "accuracy")


def point(held_out, rate=None, **metrics):
    """A point whose metrics are [2 seeds] about the given means."""
    entry = {
        name.replace("__", "/"): {"mean": value, "per_seed": [value - 0.01, value + 0.01]}
        for name, value in metrics.items()
    }
    config = {"held_out": held_out} | ({} if rate is None else {"rate": rate})
    return {"config": config, "arms": {"erm": {"metrics": entry}}}


def scores(held, validation, **others):
    accuracies = {f"{domain}__accuracy": value for domain, value in others.items()}
    return {"held_out__accuracy": held, "validation__accuracy": validation, **accuracies}


POINTS = [
    point("a", 1, **scores(0.50, 0.90)),
    point("a", 2, **scores(0.70, 0.80)),
    point("a", 3, **scores(0.60, 0.70)),
    point("b", 1, **scores(0.40, 0.60)),
    point("b", 2, **scores(0.30, 0.95)),
    point("b", 3, **scores(0.20, 0.50)),
    # Two at once: for a, rate 3 is best on b; for b, rate 1 is best on a.
    point("a+b", 1, **scores(0.0, 0.0, a=0.9, b=0.1)),
    point("a+b", 2, **scores(0.0, 0.0, a=0.2, b=0.2)),
    point("a+b", 3, **scores(0.0, 0.0, a=0.3, b=0.8)),
]


@pytest.mark.parametrize(
    ("rule", "picked", "reached"),
    [
        (TRAINING, {"a": 1, "b": 2}, {"a": 0.50, "b": 0.30}),
        (CROSS, {"a": 3, "b": 1}, {"a": 0.60, "b": 0.40}),
        (ORACLE, {"a": 2, "b": 1}, {"a": 0.70, "b": 0.40}),
    ],
)
def test_each_rule_picks_by_its_own_numbers(rule, picked, reached):
    rules = by_rules(POINTS, "held_out", PRIMARY, SELECT, oracle=True)
    assert list(rules) == [TRAINING, CROSS, ORACLE]
    choice = rules[rule]["erm"]
    assert choice.picked == {domain: {"rate": rate} for domain, rate in picked.items()}
    for domain, value in reached.items():
        np.testing.assert_allclose(choice.domains[domain], [value - 0.01, value + 0.01])


def test_rules_are_there_only_with_what_they_need():
    assert list(by_rules(POINTS, "held_out", PRIMARY, None, oracle=False)) == [CROSS]
    assert list(by_rules(POINTS[:6], "held_out", PRIMARY, SELECT, oracle=False)) == [TRAINING]
    assert by_rules(POINTS[:6], "held_out", PRIMARY, None, oracle=False) == {}  # nothing picks
    once = [POINTS[0], POINTS[3]]
    assert list(by_rules(once, "held_out", PRIMARY, None, oracle=False)) == [AS_TRAINED]
    assert by_rules(POINTS[:3], "held_out", PRIMARY, SELECT, oracle=True) == {}  # one domain
    assert by_rules([{"config": {"rate": 1}, "arms": {}}], "held_out", PRIMARY, None, False) == {}


def test_what_is_better_when_smaller_is_picked_so():
    errors = [
        point(name, rate, held_out__error=value, validation__error=value)
        for name in ("a", "b")
        for rate, value in ((1, 0.5), (2, 0.1))
    ]
    primary, select = minimize("held_out", "error"), minimize("validation", "error")
    chosen = by_rules(errors, "held_out", primary, select, oracle=True)
    for rule in (TRAINING, ORACLE):
        assert chosen[rule]["erm"].picked == {"a": {"rate": 2}, "b": {"rate": 2}}


def test_an_arm_that_lacks_a_domain_has_no_mean():
    lacking = {**POINTS[3], "arms": {}}
    assert by_rules([POINTS[0], lacking], "held_out", PRIMARY, None, oracle=False) == {}
