import numpy as np

from jaxtl.measure.analyses.picks import LAST, RANKS, at_best, at_picks
from jaxtl.plan import maximize, minimize

NAN = np.nan


def curves():
    """Six logged steps, looks at 2, 4 and 6, two seeds."""

    def at_looks(*values):
        column = np.full((6, 2), NAN)
        column[1::2] = values
        return column

    return {
        "step": np.arange(1, 7),
        "loss": np.ones((6, 2)),
        "criteria/snd": at_looks([1, 5], [3, 5], [2, 4]),
        "criteria/dev": at_looks([0.1, NAN], [0.2, NAN], [0.9, NAN]),
        "target/accuracy": at_looks([0.5, 0.6], [0.7, 0.2], [0.4, 0.9]),
    }


def test_each_rule_picks_its_own_look():
    picked = at_picks(curves(), "target/accuracy")
    assert list(picked) == [LAST, "snd", "dev", RANKS]
    np.testing.assert_array_equal(picked[LAST], [0.4, 0.9])
    np.testing.assert_array_equal(picked["snd"], [0.7, 0.6])  # the earliest of equal looks
    np.testing.assert_array_equal(picked["dev"], [0.4, NAN])  # never finite: nothing is picked
    # Seed 0: ranks 0, 2, 1 by snd and 0, 1, 2 by dev: looks 2 and 3 tie, the earlier wins.
    np.testing.assert_array_equal(picked[RANKS][0], 0.7)


def test_the_oracle_picks_by_what_it_reports():
    np.testing.assert_array_equal(at_best(curves(), maximize("target", "accuracy")), [0.7, 0.9])
    np.testing.assert_array_equal(at_best(curves(), minimize("target", "accuracy")), [0.4, 0.2])


def test_nothing_to_pick_from():
    plain = {"step": np.arange(3), "loss": np.ones((3, 2))}
    assert at_picks(plain, "target/accuracy") == {}
    assert at_best(plain, maximize("target", "accuracy")) is None
    assert at_picks({"step": np.zeros(0)}, "target/accuracy") == {}


def test_what_is_reported_does_not_matter_to_what_is_picked():
    one, other = curves(), curves()
    other["target/accuracy"] = 1 - one["target/accuracy"]
    for rule, values in at_picks(one, "target/accuracy").items():
        np.testing.assert_allclose(at_picks(other, "target/accuracy")[rule], 1 - values)
