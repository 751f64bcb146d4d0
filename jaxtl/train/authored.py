"""What an experiment file defines: its `Config`, its `build` and perhaps a `SWEEP`, checked."""

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from jaxtl.blame import place_of, summary


def read_config(module: ModuleType) -> Any:
    """The default config of an experiment file.

    Raises:
        ValueError: the file lacks `Config` or `build`, or its `Config` is no dataclass whose fields
            all have defaults.
    """
    file = place_of(module)
    if missing := [name for name in ("Config", "build") if not hasattr(module, name)]:
        raise ValueError(f"{file} has no {' and no '.join(missing)}; copy one of the others")
    config = module.Config
    if not isinstance(config, type) or not dataclasses.is_dataclass(config):
        given = "an instance" if dataclasses.is_dataclass(config) else "none"
        raise ValueError(
            f"{file}: Config must be a dataclass, a class under "
            f"@dataclasses.dataclass(frozen=True); it is {given}"
        )
    bare = [
        field.name
        for field in dataclasses.fields(config)
        if field.init and field.default is field.default_factory is dataclasses.MISSING
    ]
    if bare:
        raise ValueError(f"{file}: these fields of Config need defaults: {', '.join(bare)}")
    try:
        typing.get_type_hints(config)
    except Exception as error:  # an annotation may be any expression
        raise ValueError(
            f"{file}: the annotations of Config cannot be read: {summary(error)}"
        ) from error
    return config()


def read_sweep(module: ModuleType) -> Mapping[str, Any]:
    """The sweep that an experiment file asks for, {field: values}; empty if none.

    Raises:
        ValueError: its `SWEEP` has another form.
    """
    sweep = getattr(module, "SWEEP", {})
    if not isinstance(sweep, Mapping):
        raise ValueError(
            f"{place_of(module)}: SWEEP must be {{field of Config: (value, value, ...)}}, got a "
            f"{type(sweep).__name__}"
        )
    for field, values in sweep.items():
        if not isinstance(field, str) or not isinstance(values, list | tuple) or not values:
            raise ValueError(
                f"{place_of(module)}: SWEEP[{field!r}] must be a list or tuple of values of "
                f"a field of Config, got {values!r:.60}"
            )
    return sweep


def built(module: ModuleType, config: Any) -> Any:
    """The `Experiment` that an experiment file builds.

    Raises:
        ValueError: its `build` is no function of the config, or returns something else.
    """
    from jaxtl.form import describe  # imports JAX, which a mistyped name need not wait for
    from jaxtl.plan import Experiment

    build = module.build
    place = place_of(build) or place_of(module)
    try:
        inspect.signature(build).bind(config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: build must be a function of the config: {error}") from None
    experiment = build(config)
    if isinstance(experiment, Experiment):
        return experiment
    hints = {
        type(None): "; is its `return` missing?",
        dict: "; write Experiment(arms=..., baseline=..., evals=..., primary=...)",
    }
    hint = hints.get(type(experiment), "")
    if inspect.isgenerator(experiment) or inspect.iscoroutine(experiment):
        hint = "; write `return` in place of `yield`, and no `async`"
    raise ValueError(
        f"{place}: build must return an Experiment, it returned {describe(experiment)}{hint}"
    )
