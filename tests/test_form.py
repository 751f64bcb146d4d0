"""The form of values: what an annotation takes, what it refuses, and in which words."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtl import data, losses, models
from jaxtl.form import AT_LEAST_1, BELOW_1, Name, Patterns, checked, wrong
from jaxtl.models import classes
from jaxtl.plan import Domain, Head, Method, Stage, Update, labelled


def problems(value: Any, hint: Any) -> list[str]:
    return list(wrong("it", value, hint))


FITS = [
    (3, int),
    (np.int64(3), int),
    (np.uint8(3), int),
    (3, float),
    (np.float32(0.5), float),
    (np.array(0.5), float),
    (jnp.float32(0.5), float),
    (float("nan"), float),
    (None, int | None),
    ("a", str),
    (True, bool),
    (np.True_, bool),
    ([1, 2], Sequence[int]),
    ((1, 2), tuple[int, ...]),
    (np.array([1, 2]), Sequence[int]),
    (range(3), Sequence[int]),
    ({"a", "b"}, Sequence[str]),
    ({"a": 1}.keys(), Sequence[str]),
    ((1, 2.5), tuple[int, float]),
    ([1, 2.5], tuple[int, float]),
    ({"a": 1}, Mapping[str, int]),
    (max, Callable[[int, int], int]),
    (lambda x, y=2: x, Callable[[int], int]),
    (lambda *args: 3, Callable[[int, int], int]),
    (np.zeros(3), Any),
    ("min", Literal["max", "min"]),
    (("heads/.*",), Patterns),
    (("a",), Patterns),
    ((), Patterns),
]


@pytest.mark.parametrize(("value", "hint"), FITS)
def test_what_fits(value, hint):
    assert problems(value, hint) == []


WRONG = [
    (3.0, int, "it must be a whole number, got 3.0"),
    (True, int, "it must be a whole number, got True"),
    (np.float64(3), int, "it must be a whole number, got np.float64(3.0)"),
    ("3", float, "it must be a number, got '3'"),
    (True, float, "it must be a number, got True"),
    (1j, float, "it must be a number, got 1j"),
    (np.zeros(1), float, "it must be a number, got an array float64[1]"),
    (3, str, "it must be text, got 3"),
    (b"a", str, "it must be text, got b'a'"),
    (1, bool, "it must be True or False, got 1"),
    ("ab", Sequence[str], "it must be a list or tuple, each part text, got 'ab'"),
    ({"a": 1}, Sequence[str], "it must be a list or tuple, each part text, got a dict"),
    (np.zeros((2, 2)), Sequence[int], "each part a whole number, got an array float64[2, 2]"),
    ({1, 2}, Sequence[int], "it must be a list or tuple, each part a whole number, got a set"),
    ([1, "a"], Sequence[int], "it[1] must be a whole number, got 'a'"),
    ((1,), tuple[int, float], "it must be (a whole number, a number), got (1,)"),
    ([("a", 1)], Mapping[str, int], "it must be {name: a whole number}, got a list"),
    ({"a": None}, Mapping[str, int], "it['a'] must be a whole number, got None"),
    ({3: 1}, Mapping[str, int], "a name in it must be text, got 3"),
    ({"a/b": 1}, Mapping[Name, int], "a name in it must be text that can be printed, without a sl"),
    (3, Callable, "it must be a function, got 3"),
    (lambda: 3, Callable[[int], int], "it must be a function of 1 argument, got the function <lam"),
    (lambda x, *, y: 3, Callable[[int], int], "it must be a function of 1 argument, got the func"),
    ("up", Literal["max", "min"], "it must be 'max' or 'min', got 'up'"),
    (0, Annotated[int, AT_LEAST_1], "it must be a whole number of at least 1, got 0"),
    (float("nan"), Annotated[float, BELOW_1], "it must be a number in [0, 1), got nan"),
    (1.0, Annotated[float, BELOW_1] | None, "it must be a number in [0, 1), got 1.0"),
    (tuple("heads"), Patterns, "it must be a list or tuple of patterns, as in ('heads/.*',)"),
    (dict, Head, "it must be a head such as classes(5), got the class dict; did you mean to call"),
]


@pytest.mark.parametrize(("value", "hint", "message"), WRONG)
def test_what_does_not_fit(value, hint, message):
    (problem,) = problems(value, hint)
    assert message in problem


def test_the_limits_of_a_traced_number_are_not_looked_at():
    @jax.jit
    def build(rate):
        method = Method(ema=rate, clip_norm=rate)
        domain = Domain(data.digits().train, {"y": "label"}, weight=rate)
        return method.ema + domain.weight

    assert build(2.0) == 4.0
    with pytest.raises(ValueError, match="ema must be a number in"):
        Method(ema=2.0)


def test_all_problems_of_a_value_are_told_with_its_name():
    with pytest.raises(ValueError) as error:
        Stage("s", None, Method(), domains=[3], batch_size=2.5, num_steps=0)
    lines = str(error.value).splitlines()
    assert [line.split(" must")[0] for line in lines] == [
        "stage 's': model",
        "stage 's': domains[0]",
        "stage 's': batch_size",
    ]


def test_a_replaced_field_is_checked_too():
    domain = labelled(data.digits().train, "y")
    with pytest.raises(ValueError, match="domain: heads"):
        dataclasses.replace(domain, heads="y")


def test_the_arguments_of_a_function_are_checked_by_their_annotations():
    @checked
    def build(size: Annotated[int, AT_LEAST_1], *names: str, rate: float = 0.5, more=None):
        return size, names, rate, more

    assert build(2, "a", rate=1, more=build) == (2, ("a",), 1, build)
    with pytest.raises(ValueError) as error:
        build(0, "a", 3, rate="x")
    assert str(error.value) == (
        "build: size must be a whole number of at least 1, got 0\n"
        "build: names[1] must be text, got 3\n"
        "build: rate must be a number, got 'x'"
    )
    with pytest.raises(TypeError, match="missing a required argument: 'size'"):
        build()


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: models.mlp({"y": classes(3)}, (8, 2.5)), "mlp: hidden[1] must be a whole number"),
        (lambda: models.mlp_head((8,), 0), "mlp_head: size must be a whole number from 1"),
        (
            lambda: models.conv_net({"y": classes(3)}, padding="same"),
            "'SAME' or 'VALID', got 'same",
        ),
        (lambda: models.from_blocks([3], {}), "from_blocks: blocks[0] must be a Block, got 3"),
        (lambda: models.Block("a/b", None), "block 'a/b': name must be text that can be printed"),
        (lambda: data.random_crop(2, size=8), "size must be (a whole number from 1 to"),
        (lambda: data.gaussian_noise(-1), "stddev must be a number of at least 0"),
        (lambda: data.random_affine(scale=(0, 1)), "scale[0] must be a number above 0"),
        (lambda: data.random_intensity(flip=2), "flip must be a number in [0, 1], got 2"),
        (lambda: data.chain(data.random_flip), "chain: augments[0] must be a function of 2 argum"),
        (lambda: losses.reversal_schedule(1.5), "num_steps must be a whole number, got 1.5"),
        (lambda: Update(lambda a: a), "update: loss must be a function of 6 arguments"),
        (lambda: Method({"all": (".*", optax.sgd(0.1))}), "optimizers['all'][0] must be a list"),
    ],
)
def test_builders_refuse_what_they_cannot_build(build, expected):
    with pytest.raises(ValueError) as error:
        build()
    assert expected in str(error.value)
