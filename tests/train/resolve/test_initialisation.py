"""The program of fresh values is traced once for stages that go on with one model."""

import dataclasses

import jax
import optax
from tiny import stages

from jaxtl.methods import adapt
from jaxtl.models import from_linen
from jaxtl.train.resolve.stage import resolve


def test_a_stage_after_one_of_the_same_model_has_its_program():
    pretrain, tuned = stages()
    first = resolve(pretrain, None)
    second = resolve(tuned, first)
    assert second.initialisation is first.initialisation
    alone = resolve(dataclasses.replace(tuned, fresh=()), None)
    assert str(alone.initialisation) == str(first.initialisation)
    assert jax.tree.structure(alone.params) == jax.tree.structure(second.params)
    assert (alone.params, alone.state) == (second.params, second.state)


def test_another_model_or_networks_of_a_method_need_their_own():
    pretrain, tuned = stages()
    first = resolve(pretrain, None)
    layer = pretrain.model.backbone[0].layer
    equal = from_linen(layer, pretrain.model.heads, name="body")
    assert resolve(dataclasses.replace(tuned, model=equal), first).initialisation is not (
        first.initialisation
    )
    method = adapt.dann(optax.adam(1e-2), reversal=1.0)
    with_network = resolve(dataclasses.replace(pretrain, name="dann", method=method), first)
    assert "discriminator" in with_network.params
