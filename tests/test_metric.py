"""A metric is a value: its key is read back as it was, its sign makes larger better."""

import pytest

from jaxtl.plan import Metric, key_parts, maximize, minimize


@pytest.mark.parametrize(
    ("metric", "key", "written"),
    [
        (maximize("target", "accuracy"), "target/accuracy", "maximize('target', 'accuracy')"),
        (minimize("target", "error/top5"), "target/error/top5", None),
        (minimize("worst"), "worst", "minimize('worst')"),
        (Metric("criteria", "snd", "max"), "criteria/snd", None),
    ],
)
def test_a_key_is_read_back(metric, key, written):
    assert metric.key == key
    assert Metric.read(key, metric.better) == metric
    assert written in (None, repr(metric))


@pytest.mark.parametrize("key", ["", "/", "/accuracy", "target/", "accuracy"])
def test_a_key_without_two_names_is_a_name(key):
    assert key_parts(key) == (None, key)
    assert maximize(key).key == key


def test_a_value_that_is_better_is_larger_times_the_sign():
    accuracy, loss = maximize("target", "accuracy"), minimize("target", "loss")
    assert accuracy.sign * 0.9 > accuracy.sign * 0.8
    assert loss.sign * 0.1 > loss.sign * 0.2


@pytest.mark.parametrize(("make", "verb"), [(maximize, "maximize"), (minimize, "minimize")])
def test_two_names_in_one_are_refused_with_what_to_write(make, verb):
    with pytest.raises(ValueError) as error:
        make("target/accuracy")
    right, old = f"{verb}('target', 'accuracy')", f"{verb}('target/accuracy')"
    assert str(error.value) == f"write {right}, two names, not {old}"
