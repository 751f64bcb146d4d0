"""Parameter counts of the transformers against published ones."""

import jax
import jax.numpy as jnp
import pytest
from model_facts import parameter_count

from jaxtl import models
from jaxtl.models.bert import VARIANTS as BERT_VARIANTS
from jaxtl.models.vit import VARIANTS as VIT_VARIANTS

IMAGENET = {"imagenet": models.classes(1000)}
TEXT = {name: jax.ShapeDtypeStruct((1, 16), jnp.int32) for name in ("ids", "mask")}

# With a head of 1000 classes at 224 pixels: models_test.py of google-research/vision_transformer,
# where those without a class token are called `gap-norep`.
VITS = [
    ("Ti/16", "cls", 5_717_416),
    ("S/32", "cls", 22_878_952),
    ("S/32", "mean", 22_878_184),
    ("S/16", "cls", 22_050_664),
    ("S/16", "mean", 22_049_896),
    ("B/32", "cls", 88_224_232),
    ("B/32", "mean", 88_222_696),
    ("B/16", "cls", 86_567_656),
    ("B/16", "mean", 86_566_120),
    ("B/8", "cls", 86_576_872),
]
# Without a head: the models of Hugging Face, whose BERT has a pooler and whose DistilBERT has none.
BERTS = [
    ("bert-base", "pooler", 109_482_240),
    ("bert-small", "pooler", 28_763_648),
    ("minilm-l6", "pooler", 22_713_216),
    ("minilm-l6", "mean", 22_713_216 - 384 * 385),
    ("distilbert", "cls", 66_362_880),
]


def count(model, inputs):
    return parameter_count(jax.eval_shape(model.init, jax.random.key(0), inputs)[0])


def test_every_variant_is_in_the_table():
    assert {row[0] for row in VITS} == VIT_VARIANTS.keys()
    assert {row[0] for row in BERTS} == BERT_VARIANTS.keys()


@pytest.mark.parametrize(("variant", "pooling", "published"), VITS)
def test_vits(variant, pooling, published):
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    assert count(models.vit(variant, IMAGENET, pooling=pooling), images) == published


@pytest.mark.parametrize(("config", "pooling", "published"), BERTS)
def test_berts(config, pooling, published):
    assert count(models.bert(config, {}, pooling), TEXT) == published
