"""What is only looked at after an arm has trained costs no number when it cannot be computed."""

import types

import flax.linen as nn
import jax
import numpy as np
from tiny import blobs, experiment

from jaxtl import models
from jaxtl.measure.analyses import default
from jaxtl.measure.analyses.domain_gap import measure as domain_gap
from jaxtl.measure.analyses.features import first_features
from jaxtl.measure.outcome import analyse
from jaxtl.measure.results import TrainedArm
from jaxtl.metrics import classification
from jaxtl.plan import Experiment, Method, Stage, State, labelled, maximize, unlabelled


def test_features_that_cannot_be_computed_are_said_to_be_missing():
    """As if memory ran out: the parameters are not there any more."""
    curves = {"step": np.arange(2), "loss": np.ones((2, 1))}
    gone = types.SimpleNamespace(params={}, state=State({}), curves=curves, failed=np.zeros(1, int))
    parts = {"pretrain": gone, "adapt": gone}
    arm = TrainedArm("full", experiment(), parts, {"pretrain": {}, "adapt": {}}, (0,))
    measured, failures = analyse(arm, default())
    assert measured.keys() == {"curves"}
    assert failures.keys() == {"features"}
    assert "collection is empty" in failures["features"]


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
    arms = {
        name: [Stage(name, model, Method(), domains=domains, batch_size=8, num_steps=1)]
        for name in ("one", "two")
    }
    evals = {"target": classification(target, "class"), "source": classification(source, "class")}
    plan = Experiment(arms, "one", evals, primary=maximize("target", "accuracy"))
    keys = jax.random.split(jax.random.key(0), 2)
    trained = [
        types.SimpleNamespace(params=params, state=State(state))
        for params, state in (
            jax.vmap(lambda key: model.init(key, source.table().inputs))(k)
            for k in (keys, keys[::-1])
        )
    ]
    counts = []
    for name, at_end in zip(arms, trained, strict=True):
        traces.clear()
        arm = TrainedArm(name, plan, {name: at_end}, {name: {}}, (0, 1))
        features, gaps = first_features(arm), domain_gap(arm)
        counts.append(len(traces))
        seed = jax.tree.map(lambda leaf: np.asarray(leaf[0]), at_end.params)
        dense = seed["backbone"]["body"]["dense"]
        for name, data in {"source": source, "target": target}.items():
            expected = data.table().inputs @ dense["kernel"] + dense["bias"]
            np.testing.assert_allclose(features[name], expected, rtol=1e-5, atol=1e-5)
        assert gaps["source/mmd"].shape == (2,)
    assert counts[0] > 0 == counts[1]
