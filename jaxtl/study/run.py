"""One invocation: what is asked for, what was found to be right with it, what is done of it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxtl.measure.evaluate import Evaluator, Measured
from jaxtl.measure.results import ArmResult
from jaxtl.plan import Experiment
from jaxtl.study.checks.experiments import Node
from jaxtl.study.source_run import SourceRun
from jaxtl.train.loop import Trained
from jaxtl.train.options import RunOptions
from jaxtl.train.store.identity import Identity

NUMERIC = {
    "jax_default_matmul_precision": None,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_numpy_dtype_promotion": "standard",
    "jax_disable_jit": False,
}
"""JAX's settings that change numbers, as JAX sets them."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One invocation.

    Attributes:
        name: the experiment's.
        config: its `Config` as a dict of JSON values.
        experiment_digest: of the experiment file.
        seeds: at least one.
        arms: names to run; empty for all.
        directory: <workdir>/<experiment>.
        options: how to run.
        resume: False refuses a directory that holds a run.
        headline: first line of the experiment's docstring.
        oracle: show what selection by the test data would have given, beside the honest numbers.
        file: the experiment's, as it was named; None where it has none.
    """

    name: str
    config: Mapping[str, Any]
    experiment_digest: str
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    directory: Path
    options: RunOptions
    resume: bool = True
    headline: str = ""
    oracle: bool = False
    file: Path | None = None


def run_record(run: Run) -> dict[str, Any]:
    """config.json: what all arms of a directory share."""
    return {
        "experiment": run.name,
        "config": dict(run.config),
        "seeds": list(run.seeds),
        "dtype": run.options.dtype,
        **({"jax": settings} if (settings := numeric_settings()) else {}),
    }


def numeric_settings() -> dict[str, Any]:
    """{name: value} of JAX's settings that change numbers and are not as JAX sets them."""
    values = {name: getattr(jax.config, name) for name in NUMERIC}
    return {name: value for name, value in values.items() if value != NUMERIC[name]}


@dataclasses.dataclass(frozen=True)
class Checked:
    """A run that nothing is wrong with.

    Attributes:
        nodes: {stage: Node}, parents first.
        identities: {stage: what its weights depend on}.
        source_run: where source stages are loaded from, if not trained.
        warnings: what is legitimate but should be known.
        unwritable: why the run's directory cannot be written, None if it can.
    """

    experiment: Experiment
    run: Run
    arms: tuple[str, ...]
    nodes: Mapping[str, Node]
    identities: Mapping[str, Identity]
    source_run: SourceRun | None
    warnings: list[str]
    unwritable: str | None = None


class Done(NamedTuple):
    """What has been trained and measured so far, by stage, and what it makes of the arms.

    Attributes:
        evaluator: measures; has the evaluations' examples on the device.
        trained: {stage: Trained}.
        measured: {stage: {evaluation: Measured}}.
        results: {arm: ArmResult}.
    """

    evaluator: Evaluator
    trained: dict[str, Trained]
    measured: dict[str, dict[str, Measured]]
    results: dict[str, ArmResult]
