"""What is only looked at after an arm has trained costs no number when it cannot be computed."""

import types

import flax.linen as nn
import jax
import numpy as np
from tiny import blobs, experiment

from jaxtl import models
from jaxtl.measure.domain_gap import domain_gap
from jaxtl.measure.outcome import plotted_features, with_views
from jaxtl.measure.results import ArmResult
from jaxtl.metrics import classification
from jaxtl.plan import Experiment, Method, Stage, State, labelled, maximize, unlabelled


def test_features_that_cannot_be_computed_are_said_to_be_missing():
    """As if memory ran out: the parameters are not there any more."""
    result = ArmResult("full", ("pretrain", "adapt"), {"target/accuracy": [0.5]})
    gone = types.SimpleNamespace(params={}, state=State({}))
    found = with_views(result, experiment(), {"adapt": gone}, (0,))
    assert found.metrics == {"target/accuracy": [0.5]} and found.features == {}
    assert found.not_drawn.keys() == {"features"}
    assert "collection is empty" in found.not_drawn["features"]


def test_arms_that_share_a_model_share_the_programs_that_look_at_it():
    traces = []

    class Traced(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            traces.append(inputs.shape)
            return nn.Dense(4, name="dense")(inputs)

    model = models.from_linen(Traced(), {"class": models.classes(3)})
    source, target = blobs("source"), blobs("target", 40, 1.0, seed=1)
    domains = [labelled(source, "class"), unlabelled(target, "class")]
    arms = {name: [Stage(name, model, Method(), domains, 8, 1)] for name in ("one", "two")}
    evals = {"target": classification(target, "class"), "source": classification(source, "class")}
    plan = Experiment(arms, "one", evals, maximize("target", "accuracy"))
    keys = jax.random.split(jax.random.key(0), 2)
    trained = [
        types.SimpleNamespace(params=params, state=State(state))
        for params, state in (
            jax.vmap(lambda key: model.init(key, source.table().inputs))(k)
            for k in (keys, keys[::-1])
        )
    ]
    counts = []
    for (stage,), at_end in zip(arms.values(), trained, strict=True):
        traces.clear()
        features = plotted_features(stage, at_end, plan)
        gaps = domain_gap(stage, at_end, plan, (0, 1))
        counts.append(len(traces))
        seed = jax.tree.map(lambda leaf: np.asarray(leaf[0]), at_end.params)
        dense = seed["backbone"]["body"]["dense"]
        for name, data in {"source": source, "target": target}.items():
            expected = data.table().inputs @ dense["kernel"] + dense["bias"]
            np.testing.assert_allclose(features[name][0], expected, rtol=1e-5, atol=1e-5)
        assert gaps["source/mmd"].shape == (2,)
    assert counts[0] > 0 == counts[1]
