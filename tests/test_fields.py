"""A config read back from JSON."""

import dataclasses
from pathlib import Path

import pytest

from jaxtl.fields import from_json, json_values


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
