"""What is only looked at after an arm has trained costs no number when it cannot be computed."""

import types

from tiny import experiment

from jaxtl.measure.outcome import with_views
from jaxtl.measure.results import ArmResult


def test_features_that_cannot_be_computed_are_said_to_be_missing():
    """As if memory ran out: the parameters are not there any more."""
    result = ArmResult("full", ("pretrain", "adapt"), {"target/accuracy": [0.5]})
    gone = types.SimpleNamespace(params={}, state={})
    found = with_views(result, experiment(), {"adapt": gone}, (0,))
    assert found.metrics == {"target/accuracy": [0.5]} and found.features == {}
    assert found.not_drawn.keys() == {"features"}
    assert "collection is empty" in found.not_drawn["features"]
