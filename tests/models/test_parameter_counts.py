"""Every variant of every published architecture has as many parameters as its authors' has."""

import jax
import jax.numpy as jnp
import pytest
from model_facts import parameter_count

from jaxtl import models
from jaxtl.models.efficientnet_lite import VARIANTS as EFFICIENTNET_LITE
from jaxtl.models.resnet import VARIANTS as RESNET

IMAGE = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
IMAGENET = {"imagenet": models.classes(1000)}

# (architecture, variant, heads, inputs, the count that timm and torchvision publish)
TABLE = [
    ("resnet", "resnet18", IMAGENET, IMAGE, 11_689_512),
    ("resnet", "resnet34", IMAGENET, IMAGE, 21_797_672),
    ("resnet", "resnet50", IMAGENET, IMAGE, 25_557_032),
    ("efficientnet_lite", "lite0", IMAGENET, IMAGE, 4_652_008),
    ("efficientnet_lite", "lite1", IMAGENET, IMAGE, 5_416_680),
    ("efficientnet_lite", "lite2", IMAGENET, IMAGE, 6_092_072),
    ("efficientnet_lite", "lite3", IMAGENET, IMAGE, 8_197_096),
    ("efficientnet_lite", "lite4", IMAGENET, IMAGE, 13_006_568),
]


def test_every_variant_is_in_the_table():
    assert [row[1] for row in TABLE] == [*RESNET, *EFFICIENTNET_LITE]


@pytest.mark.parametrize(("architecture", "variant", "heads", "inputs", "count"), TABLE)
def test_count(architecture, variant, heads, inputs, count):
    model = getattr(models, architecture)(variant, heads)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), inputs)
    assert parameter_count(params) == count


@pytest.mark.parametrize("architecture", sorted({row[0] for row in TABLE}))
def test_an_unknown_variant_names_the_closest(architecture):
    variant = next(row[1] for row in TABLE if row[0] == architecture)
    with pytest.raises(ValueError, match=f"unknown variant '{variant}x'. Did you mean '{variant}'"):
        getattr(models, architecture)(f"{variant}x", {})
