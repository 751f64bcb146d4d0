"""How far the domains are apart at the end of an arm."""

import dataclasses

import jax
import numpy as np
import pytest
from test_criteria import TEST, adapting
from tiny import blobs, run_tiny

from jaxtl.losses import mmd
from jaxtl.measure.analyses.domain_gap import measure, source_evaluations
from jaxtl.measure.results import TrainedArm
from jaxtl.metrics import classification
from jaxtl.plan import maximize
from jaxtl.train.store.checkpoints import restore_weights
from jaxtl.transferability import proxy_a_distance

SOURCE = blobs("source test", 40, seed=3)


def with_source(**fields):
    plan = adapting(criteria={}, **fields)
    return dataclasses.replace(
        plan, evals={**plan.evals, "source": classification(SOURCE, "source")}
    )


@pytest.mark.slow
def test_the_gap_is_that_of_the_features_at_the_end(tmp_path):
    plan = with_source()
    summary, _ = run_tiny(tmp_path, plan=plan)
    for name, stages in plan.arms.items():
        found = summary["arms"][name]["domain_gap"]
        assert found.keys() == {"source/a_distance", "source/mmd"}
        step = tmp_path / "stages" / name / "checkpoints" / "9" / "state"
        params, state = restore_weights(step)
        for seed in range(2):
            own = jax.tree.map(lambda leaf, s=seed: leaf[s], (params, state.statistics))
            features = [
                np.asarray(stages[-1].model.apply(*own, data.table().inputs)[0]["features"])
                for data in (SOURCE, TEST)
            ]
            distance = found["source/a_distance"]["per_seed"][seed]
            np.testing.assert_allclose(distance, proxy_a_distance(*features), atol=1e-5)
            expected = mmd(*features, unbiased=True)
            np.testing.assert_allclose(found["source/mmd"]["per_seed"][seed], expected, atol=1e-5)


def test_there_is_none_without_adaptation_or_another_domain():
    plan = with_source()
    assert list(source_evaluations(plan)) == ["source"]
    labelled_only = dataclasses.replace(plan, arms={"source_only": plan.arms["source_only"]})
    assert source_evaluations(labelled_only) == {}
    assert source_evaluations(adapting()) == {}
    derived = {"worst/accuracy": lambda metrics: min(metrics.values())}
    worst = dataclasses.replace(plan, derived=derived, primary=maximize("worst", "accuracy"))
    assert source_evaluations(worst) == {} == measure(TrainedArm("dann", worst, {}, {}, (0,)))
