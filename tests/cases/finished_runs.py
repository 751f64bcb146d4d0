"""Finished runs as they lie on disk, with numbers that are given: nothing is trained."""

import json
from pathlib import Path

import numpy as np

from jaxtl.measure.results import ArmResult, ExperimentResult
from jaxtl.plan import maximize
from jaxtl.report import storage
from jaxtl.report.summary import summarize, write_summary

ACCURACY = {0: 0.80, 1: 0.84, 2: 0.78, 3: 0.81, 4: 0.83, 5: 0.79, 6: 0.82, 7: 0.85}
"""What `scratch` reaches with each seed."""
GAINS = {"scratch": 0.0, "full": 0.05}
VERSIONS = {"python": "3.11", "jax": "0.10"}


def accuracies(seeds, gain=0.0, shift=0.0):
    """Of an arm; its gain is not quite the same in every seed."""
    return [ACCURACY[seed] + gain + shift + 0.1 * (seed % 3) * (gain + shift) for seed in seeds]


def write_run(
    directory: Path,
    *,
    seeds=(0, 1, 2, 3, 4),
    shift=0.0,
    gains=GAINS,
    steps=100,
    batch_size=32,
    labels=10,
    config=None,
    test_data="aa",
    file="ff",
    weights=None,
    versions=VERSIONS,
    environment=None,
    **changes,
):
    """A run of two arms that share no stage; `shift` is what all of its arms are better by."""
    seeds = tuple(seeds)
    arms = {
        name: ArmResult(
            name=name,
            stages=(name,) if name == "scratch" else ("pretrain", name),
            metrics={"target/accuracy": np.array(accuracies(seeds, gain, shift))},
            trainable_parameters=10,
            total_parameters=20,
            train_seconds=1.5,
        )
        for name, gain in gains.items()
    }
    config = {"learning_rate": 0.01, **(config or {})}
    values = {
        "experiment": directory.name,
        "config": config,
        "seeds": seeds,
        "baseline": "scratch",
        "selection": "last step",
        "primary": maximize("target", "accuracy"),
        "arms": arms,
        "declared": (maximize("target", "accuracy"),),
        "evaluations": {
            "target": {"program": "pp", "seeds": {str(seed): test_data for seed in seeds}}
        },
    }
    result = ExperimentResult(**{**values, **changes})
    write_summary(directory / "summary.json", summarize(result))
    for arm in arms.values():
        storage.save(directory / "report_data", arm)
    write(directory / "config.json", experiment=directory.name, config=config, seeds=list(seeds))
    facts = {"command": f"launch.py --experiment={directory.name}", "jax": "0.10", "cores": 2}
    write(directory / "environment.json", devices=["cpu"], **{**facts, **(environment or {})})
    for stage in ("pretrain", *gains):
        rows = f"few({labels})" if stage in gains else "all"
        write(
            directory / "stages" / stage / "stage.json",
            finished=True,
            identity={
                "stage": stage,
                "rules": 1,
                "steps": steps,
                "batch_size": batch_size,
                "weights": weights,
                "published": None,
                "data": {
                    "domain 0": {
                        "name": f"toy.train.{rows}",
                        "sampled": False,
                        "seeds": {
                            str(seed): f"{rows} {seed if stage in gains else ''}" for seed in seeds
                        },
                    }
                },
                "parent": {},
                "validation": None,
                "seeds": list(seeds),
            },
            made_with={"versions": versions},
            experiment_file=file,
            train_seconds=1.5,
        )
    return directory


def write(path, **content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def edit(path, **changes):
    """Changes keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
