"""A finished run with known numbers: four arms on a target that transfer helps, hurts or leaves."""

import numpy as np
import pytest

from jaxtl.measure.analyses import default
from jaxtl.measure.results import ArmResult, ExperimentResult
from jaxtl.plan import maximize, minimize

DIGITS = tuple("56789")


def make_arm(name, shift, seeds, stages, trainable=93_322):
    rng = np.random.default_rng(sum(map(ord, name)))
    luck = np.random.default_rng(0).normal(0, 0.02, len(seeds))  # the labels' luck, shared by arms
    accuracy = 0.84 + luck + shift + rng.normal(0, 0.008, len(seeds))
    curves = {}
    for stage in stages:
        step = np.arange(0, 300, 10)
        decay = np.exp(-step / (60 if shift > 0 else 120))[:, None]
        noise = rng.normal(0, 0.1, (step.size, len(seeds)))
        curves[stage] = {
            "step": step,
            "loss": 0.05 + 1.6 * decay * np.exp(noise),
            "accuracy": 0.97 - 0.75 * decay * np.exp(noise),
        }
    counts = rng.poisson(3, (len(seeds), 5, 5)) + np.eye(5, dtype=int) * 90
    centres = np.random.default_rng(1).normal(0, 3, (2, 5, 16))
    labels = np.arange(250) % 5
    cloud = [c[labels] * (1 + 4 * shift) + rng.normal(0, 1.5, (250, 16)) for c in centres]
    source = len(stages) > 1
    return ArmResult(
        name=name,
        stages=stages,
        metrics={
            "target/accuracy": accuracy,
            "target/f1_macro": accuracy - 0.01,
            "target/loss": 1 - accuracy,
            "source/accuracy": np.full(len(seeds), 0.95 if source else np.nan),
        },
        trainable_parameters=trainable,
        total_parameters=93_322,
        train_seconds=1.9,
        steps_per_second=812.0,
        analyses={
            "curves": curves,
            "classes": {"target": {"counts": counts, "names": np.array(DIGITS)}},
            "features": {
                "points": {"source": cloud[0][:, :2], "target": cloud[1][:, :2]},
                "classes": {
                    "source": np.array(list("01234"))[labels],
                    "target": np.array(DIGITS)[labels],
                },
                "variance": np.array([0.5, 0.25]),
                "adapted": np.array(False),
            },
        }
        | ({"forgetting": {"source/accuracy": 0.03 + luck}} if source else {}),
    )


def make_result(seeds=(0, 1, 2, 3, 4), **changes):
    arms = [
        make_arm("scratch", 0.0, seeds, ("scratch",)),
        make_arm("full", 0.05, seeds, ("pretrain", "full")),
        make_arm("partial", 0.08, seeds, ("pretrain", "partial"), trainable=37_578),
        make_arm("dann", -0.06, seeds, ("dann",)),
        make_arm("probe", 0.0, seeds, ("pretrain", "probe"), trainable=650),
    ]
    values = {
        "experiment": "digits",
        "config": {"labels_per_class": 10, "learning_rate": 1e-3},
        "seeds": seeds,
        "baseline": "scratch",
        "selection": "last step",
        "primary": maximize("target", "accuracy"),
        "arms": {arm.name: arm for arm in arms},
        "analyses": default(),
        "declared": (
            maximize("target", "accuracy"),
            maximize("target", "f1_macro"),
            minimize("target", "loss"),
            maximize("source", "accuracy"),
        ),
        "environment": {"versions": {"jax": "0.10.2"}, "devices": ["cpu:0"], "git_commit": "abc"},
        "headline": "Digits 0-4 to 5-9 with ten labels a class: which way of transferring helps?",
    }
    return ExperimentResult(**{**values, **changes})


@pytest.fixture(scope="session")
def make():
    """`make(seeds, **changes of ExperimentResult)`."""
    return make_result


@pytest.fixture(scope="session")
def result():
    return make_result()


@pytest.fixture(scope="session")
def swept():
    """Two arms at three points of a sweep; the gain grows with the field."""
    seeds = (0, 1, 2, 3, 4)
    points = [
        (
            {"target_weight": weight},
            {
                "scratch": make_arm("scratch", 0.0, seeds, ("scratch",)),
                "full": make_arm("full", shift, seeds, ("pretrain", "full")),
            },
        )
        for weight, shift in [(0.1, 0.01), (1.0, 0.05), (10.0, 0.09)]
    ]
    return make_result(sweep=points)
