"""A config read back from JSON."""

import dataclasses
from pathlib import Path

import pytest

from jaxtl.fields import from_json, json_values, parse, split_values, sweep_points


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    warm: bool = False


@dataclasses.dataclass(frozen=True)
class Config:
    sizes: tuple[int, ...] = (4,)
    pairs: tuple[tuple[int, float], ...] = ()
    names: tuple[str, ...] = ("a b",)
    many: list[float] = dataclasses.field(default_factory=list)
    limit: int | None = None
    folder: Path = Path("here")
    text: str = ""
    factors: dict[str, float] = dataclasses.field(default_factory=dict)
    inner: Inner = Inner()


def test_a_config_comes_back_from_json():
    config = Config(
        sizes=(),
        pairs=((1, 2.5), (3, 1e-9)),
        names=("it's", "(1, 2)", ""),
        many=[1.0, 1e22],
        limit=3,
        folder=Path("a folder/x"),
        text="None=1, 2",
        factors={"b": 2.0, "a": 0.5},
        inner=Inner(1 / 3, True),
    )
    back, gone = from_json(Config(), json_values(config))
    assert back == config and gone == []
    assert isinstance(back.folder, Path) and isinstance(back.sizes, tuple)
    assert from_json(config, json_values(Config())) == (Config(), [])


def test_fields_that_are_gone_or_new():
    values = {"sizes": [2], "old": 1, "inner": {"rate": 0.5, "older": {"x": 1}}}
    config, gone = from_json(Config(limit=7), values)
    assert config == Config(sizes=(2,), limit=7, inner=Inner(0.5))
    assert gone == ["inner.older.x", "old"]
    with pytest.raises(ValueError, match=r"limit: 'many' is no value like None"):
        from_json(Config(), {"limit": "many"})


def test_values_of_a_sweep_may_hold_commas():
    points = sweep_points(Config(), ["sizes=(4,),(8, 8)", "inner.rate=1,2"], {})
    assert [values for values, _ in points] == [
        {"sizes": sizes, "inner.rate": rate} for sizes in ((4,), (8, 8)) for rate in (1.0, 2.0)
    ]
    assert points[3][1] == Config(sizes=(8, 8), inner=Inner(2.0))
    assert split_values("a,[1,2],{'x': (1,)},,") == ["a", "[1,2]", "{'x': (1,)}", "", ""]
    for text in ("(", "1)", ")(", "[1,(2]"):
        with pytest.raises(ValueError, match="do not fit together"):
            split_values(text)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["inner.rate=nan,1"], "nan is no value"),
        (["inner.rate=1,inf"], "inf is no point"),
        (["inner.rate=1,1.0"], "the point inner.rate=1.0 stands twice"),
        (["inner.rate=1", "inner.rate=2"], "inner.rate=... stands twice"),
        (["inner.rate="], "expected float"),
        (["factors={'a': nan},{}"], "factors"),
    ],
)
def test_points_that_are_none(given, problem):
    with pytest.raises(ValueError, match=problem):
        sweep_points(Config(), given, {})


@pytest.mark.parametrize("text", ["'", '"a', "('a", "(1,", "{'a'", "\\", "(" * 300, "\0", "é"])
def test_text_that_is_no_value_is_one_line(text):
    for field in ("sizes", "pairs", "names", "many", "limit", "factors", "inner.rate"):
        try:
            parse(Config(), "config", [f"--config.{field}={text}"])
        except ValueError as error:
            assert "\n" not in str(error).replace(text, "")
