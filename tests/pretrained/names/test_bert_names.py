"""Other projects' names of BERT against those that the file of MiniLM has."""

import re

import numpy as np
import pytest
from weight_files import leaves, read, titled, written

from jaxtl import models
from jaxtl.models import BertConfig
from jaxtl.paths import flatten
from jaxtl.pretrained.names.bert import BERT as SCHEMES

BERT, DISTILBERT = titled(SCHEMES, "BERT"), titled(SCHEMES, "DistilBERT")
TEXT = {name: np.ones((1, 4), np.int32) for name in ("ids", "mask")}


def bert(pooling="pooler", **options):
    model = models.bert(BertConfig(8, 11, 2, 12, 20, 6, **options), {}, pooling)
    return model, leaves(model, TEXT)


MODEL, WANTED = bert()


def random_file(scheme, wanted):
    rng = np.random.default_rng(0)
    ours = {path: rng.normal(size=shape).astype(np.float32) for path, shape in wanted.items()}
    return written(scheme, ours)


FILE = random_file(BERT, WANTED)


def test_shapes_and_layouts():
    assert FILE["encoder.layer.10.intermediate.dense.weight"].shape == (12, 8)
    assert FILE["embeddings.word_embeddings.weight"].shape == (20, 8)
    params = flatten(read(BERT, WANTED, FILE))
    np.testing.assert_array_equal(
        params["backbone/layer_10/attention/key/kernel"],
        FILE["encoder.layer.10.attention.self.key.weight"].T,
    )
    np.testing.assert_array_equal(
        params["backbone/layer_1/norm_2/scale"], FILE["encoder.layer.1.output.LayerNorm.weight"]
    )


@pytest.mark.parametrize("name", ["BERT with the prefix bert.", "gamma"])
def test_prefix_and_old_names(name):
    file = {f"bert.{name}": array for name, array in FILE.items()}
    if name == "gamma":
        name = "BERT with gamma and beta with the prefix bert."
        file = {
            re.sub(
                r"LayerNorm\.(weight|bias)$",
                lambda match: f"LayerNorm.{'gamma' if match[1] == 'weight' else 'beta'}",
                key,
            ): array
            for key, array in file.items()
        }
    scheme, expected = titled(SCHEMES, name), flatten(read(BERT, WANTED, FILE))
    params = flatten(read(scheme, WANTED, file))
    assert all(np.array_equal(params[path], expected[path]) for path in WANTED)
    assert written(scheme, params).keys() == file.keys()


def test_distilbert():
    _, wanted = bert("cls", segments=0)
    names = {
        r"encoder\.(layer\.\d+\.)": r"transformer.\1",
        r"attention\.self\.(\w)\w*": r"attention.\1_lin",
        r"attention\.output\.dense": "attention.out_lin",
        r"attention\.output\.LayerNorm": "sa_layer_norm",
        r"(\d+\.)output\.LayerNorm": r"\1output_layer_norm",
        r"intermediate\.dense": "ffn.lin1",
        r"(\d+\.)output\.dense": r"\1ffn.lin2",
    }
    file = {}
    for name, array in FILE.items():
        for pattern, replacement in names.items():
            name = re.sub(pattern, replacement, name)
        file[name] = array
    params = flatten(read(DISTILBERT, wanted, file))
    expected = flatten(read(BERT, WANTED, FILE))
    assert all(np.array_equal(params[path], expected[path]) for path in wanted)
    left = file.keys() - written(DISTILBERT, params).keys()
    assert left == {"embeddings.token_type_embeddings.weight", "pooler.dense.weight"} | {
        "pooler.dense.bias"
    }


def test_classifiers_and_what_has_no_name():
    paths = ("heads/target/kernel", "backbone/layer_0/attention/query/lora_a")
    for scheme in SCHEMES:
        entries = scheme.entries(paths)
        named = "DistilBERT" not in scheme.name
        assert [entry.name for entry in entries.values()] == ["classifier.weight"] * named
    assert re.fullmatch(BERT.ignored[0], "bert.embeddings.position_ids")
    assert re.fullmatch(BERT.ignored[0], "embeddings.position_ids")
