"""Sentences say what the numbers allow, and no more."""

import numpy as np
import pytest

from jaxtl.measure.results import ArmResult
from jaxtl.plan import maximize, minimize
from jaxtl.report import wording
from jaxtl.report.summary import summarize

MAX = maximize("t", "accuracy")
MIN = minimize("t", "mse")


def summary_of(make, primary, **arms):
    """Per-seed values of the primary metric, by arm."""
    results = {
        name: ArmResult(name, (name,), {primary.key: np.array(values, np.float64)})
        for name, values in arms.items()
    }
    seeds = tuple(range(len(next(iter(arms.values())))))
    return summarize(make(seeds, arms=results, primary=primary))


def test_positive_negative_and_undecided(make):
    summary = summary_of(
        make,
        MAX,
        scratch=[0.5, 0.5, 0.5],
        full=[0.6, 0.61, 0.59],
        dann=[0.4, 0.41, 0.39],
        probe=[0.6, 0.4, 0.5],
    )
    assert wording.sentences(summary) == [
        "full: positive transfer, +0.100 [0.075, 0.125] t/accuracy over scratch "
        "(3 seeds, paired t).",
        "dann: negative transfer, -0.100 [-0.125, -0.075] t/accuracy over scratch "
        "(3 seeds, paired t).",
        "probe: undecided, +0.000 [-0.248, 0.248] t/accuracy over scratch "
        "(3 seeds, paired t): the interval contains 0; not even 1,000 seeds would decide.",
    ]
    assert wording.answer(summary) == (
        "Yes: full is better than scratch. No: dann is worse than scratch. Undecided: probe."
    )


def test_an_error_that_falls_is_said_to_be_lower(make):
    summary = summary_of(
        make, MIN, scratch=[2.0, 2.0, 2.0], ridge=[1.0, 1.1, 0.9], bad=[3.0, 3.1, 2.9]
    )
    assert wording.sentences(summary) == [
        "ridge: positive transfer, t/mse lower by 1.000 [0.752, 1.248] than scratch "
        "(3 seeds, paired t).",
        "bad: negative transfer, t/mse higher by 1.000 [0.752, 1.248] than scratch "
        "(3 seeds, paired t).",
    ]


def test_one_seed_proves_nothing(make):
    summary = summary_of(make, MAX, scratch=[0.5], full=[0.9])
    assert wording.sentences(summary) == [
        "full: undecided, +0.400 t/accuracy over scratch (1 seed): one seed gives no interval."
    ]
    assert wording.answer(summary) == "Undecided: full."


def test_failed_seeds_are_named(make):
    nan = float("nan")
    summary = summary_of(
        make, MAX, scratch=[0.5, 0.5, 0.5, nan], full=[0.6, nan, 0.62, 0.6], lost=[nan] * 4
    )
    full, lost = wording.sentences(summary)
    assert full == (
        "full: undecided, +0.110 [-0.017, 0.237] t/accuracy over scratch (2 seeds, paired t): "
        "the interval contains 0; left out for want of a finite value: seeds 1, 3; "
        "about 6 seeds would decide (--seeds=6)."
    )
    assert lost == "lost: undecided, no seed has t/accuracy both here and for scratch."


@pytest.mark.parametrize(
    "seeds, said",
    [
        ((0, 1, 2), "; about 6 seeds would decide (--seeds=6)."),
        ((3, 5, 9), "; about 6 seeds would decide (--seeds=3,5,9,0,1,2)."),
        (tuple(range(1000, 1003)), "; about 6 seeds would decide (--seeds=1000,1001,1002,0,1,2)."),
        (tuple(10**9 + i for i in range(3)), "; about 6 seeds would decide."),  # the page has it
    ],
)
def test_more_seeds_that_would_decide_are_said_with_their_flag(make, seeds, said):
    values = {"scratch": [0.7, 0.8, 0.9], "full": [0.8, 0.8, 1.0]}
    arms = {n: ArmResult(n, (n,), {"t/accuracy": np.array(v)}) for n, v in values.items()}
    (sentence,) = wording.sentences(summarize(make(seeds, arms=arms, primary=MAX)))
    assert sentence.endswith(f"the interval contains 0{said}")


def test_a_summary_of_an_earlier_version_promises_no_seeds(make):
    summary = summary_of(make, MAX, scratch=[0.7, 0.8, 0.9], full=[0.8, 0.8, 1.0])
    for arm in summary["arms"].values():
        del arm["seeds_to_decide"]
    assert wording.sentences(summary)[0].endswith(": the interval contains 0.")


@pytest.mark.parametrize(
    "launch, expected",
    [
        ("launch.py --experiment=x", "python launch.py --experiment=x --seeds=6"),
        ("/b/jaxtl --experiment x --seeds 3", "/b/jaxtl --experiment x --seeds=6"),
        ("launch.py --seeds=3 --experiment=x", "python launch.py --experiment=x --seeds=6"),
        (
            "launch.py --experiment=x --arms=full --sweep='a=(1, 2),3'",
            "python launch.py --experiment=x '--sweep=a=(1, 2),3' '--arms=a b,full' --seeds=6",
        ),
        (
            "launch.py --experiment=x --arms all --overwrite=all --resume=false --noresume -v",
            "python launch.py --experiment=x -v --seeds=6",
        ),
        ("python -m pytest", "--seeds=6"),
        ("launch.py --experiment='x", "--seeds=6"),
        ("", "--seeds=6"),
    ],
)
def test_the_command_that_adds_seeds(launch, expected):
    assert wording.command_with_seeds(launch, ["a b", "full"], (0, 1, 2), 6) == expected


def test_without_baseline_nothing_is_claimed(make):
    summary = summary_of(make, MAX, full=[0.6, 0.7])
    assert wording.sentences(summary) == ["full: undecided, the baseline scratch has not been run."]
    assert wording.answer(summary) == "Not known: the baseline scratch has not been run."
    alone = summary_of(make, MAX, scratch=[0.6, 0.7])
    assert alone["arms"]["scratch"]["seeds_to_decide"] is None
    assert wording.answer(alone) == "Not known: only the baseline scratch has been run."


@pytest.mark.parametrize(
    "mean, ends, text",
    [
        (0.0812, [0.0623, 0.1001], "0.081 [0.062, 0.100]"),
        (0.0123, [0.0004, 0.0242], "0.0123 [0.0004, 0.0242]"),  # an end above 0 is seen above 0
        (0.5, [0.49996, 0.50004], "0.50000 [0.49996, 0.50004]"),
        (3050.4, [3010.2, 3090.6], "3050 [3010, 3091]"),
        (0.95, [0.95, 0.95], "0.950 [0.950, 0.950]"),
        (2e-7, [1e-7, 3e-7], "2.00e-07 [1.00e-07, 3.00e-07]"),
        (0.0, None, "0.000"),
        (None, None, "-"),
    ],
)
def test_interval_is_as_precise_as_it_is_narrow(mean, ends, text):
    assert wording.interval({"mean": mean, "ci95": ends}) == text


def test_secondary_metrics_prefer_the_primary_evaluation(result):
    summary = summarize(result)
    assert wording.secondary(summary, 3) == ["target/f1_macro", "source/accuracy", "target/loss"]


@pytest.mark.parametrize(
    "metric, mean, ends, text",
    [
        ("t/accuracy", 0.98, [0.955, 1.005], "0.980 [0.955, beyond 1]"),
        ("f1_macro", 0.02, [-0.01, 0.05], "0.020 [below 0, 0.050]"),
        ("t/accuracy", 0.208, [0.00002, 0.416], "0.208 [0.000, 0.416]"),
        ("t/accuracy", 93.0, [92.0, 94.0], "93.00 [92.00, 94.00]"),  # in percent
        ("t/loss", 0.98, [0.955, 1.005], "0.980 [0.955, 1.005]"),
        ("t/accuracy_gap", 0.02, [-0.01, 0.05], "0.020 [-0.010, 0.050]"),  # a user's own
    ],
)
def test_ends_beyond_what_can_be_are_words(metric, mean, ends, text):
    limits = wording.limits(metric)
    assert wording.interval({"mean": mean, "ci95": ends}, limits=limits) == text


def test_arms_that_do_not_train_the_primary_task_are_named_apart(make):
    values = {"scratch": {"t/accuracy": [0.5] * 3}, "full": {"t/accuracy": [0.6, 0.61, 0.59]}}
    values |= {"other": {"u/accuracy": [0.9] * 3}}
    arms = {
        name: ArmResult(name, (name,), {key: np.array(v) for key, v in metrics.items()})
        for name, metrics in values.items()
    }
    summary = summarize(make((0, 1, 2), arms=arms, primary=MAX))
    assert wording.answer(summary) == "Yes: full is better than scratch. Without t/accuracy: other."
    assert [line.split(":")[0] for line in wording.sentences(summary)] == ["full"]
