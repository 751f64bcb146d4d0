"""Texts through the engine: a tiny BERT trains on token ids, with and without cached blocks."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest
from tiny import OPTIONS, run_tiny, train

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.models import BertConfig, classes
from jaxtl.plan import Experiment, Stage, labelled, maximize
from jaxtl.train.feed.prefix import constant_prefix
from jaxtl.train.resolve.stage import resolve

pytest.importorskip("tokenizers")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "very", "not"]
FROZEN = ("backbone/embed/.*",)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    vocabulary = tmp_path_factory.mktemp("text") / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS))
    rng = np.random.default_rng(0)
    labels = np.arange(16) % 2
    values = [
        " ".join(["very"] * rng.integers(3) + ["bad" if label else "good", "film"])
        for label in labels
    ]
    given = data.arrays(np.array(values, object), labels, name="films", classes=("good", "bad"))
    return given.tokenize(vocabulary, 7)


def stage(texts, method, dropout=0.0):
    config = BertConfig(8, 1, 2, 12, vocabulary=len(WORDS), positions=7)
    model = models.bert(config, {"label": classes(2)}, "mean", dropout=dropout)
    return Stage(
        "films", model, method, domains=[labelled(texts, "label")], batch_size=4, num_steps=2
    )


def partial():
    method = transfer.partial(optax.adam(1e-2), freeze=FROZEN)
    return dataclasses.replace(method, fresh_frozen=True)


@pytest.mark.slow
def test_a_tiny_bert_trains_from_cached_embeddings_as_without_them(texts, tmp_path):
    plan = stage(texts, partial())
    experiment = Experiment(
        {"partial": [plan]},
        "partial",
        {"films": classification(texts, "label")},
        primary=maximize("films", "accuracy"),
    )
    summary, _ = run_tiny(tmp_path / "cached", seeds=(0,), plan=experiment)
    (record,) = (tmp_path / "cached").rglob("stage.json")
    assert "features after embed cached" in json.loads(record.read_text())["feature_cache"]

    options = dataclasses.replace(OPTIONS, feature_cache=False)
    trained = train(plan, tmp_path / "whole", seeds=(0,), options=options)
    table = texts.table()
    params = jax.tree.map(lambda leaf: leaf[0], trained.params)
    logits = jax.jit(plan.model.apply)(params, {}, table.inputs)[0]["logits"]["label"]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, table.labels["label"])
    metrics = summary["arms"]["partial"]["metrics"]
    np.testing.assert_allclose(metrics["films/loss"]["mean"], losses.mean(), rtol=1e-4)


def test_layers_that_drop_out_are_not_constant(texts):
    found = [constant_prefix(resolve(stage(texts, partial(), p), None)) for p in (0.0, 0.1)]
    assert found[0].block == "embed" and found[1] is None


def test_texts_that_are_not_tokenised():
    raw = data.arrays(np.array(["good film", "bad film"], object), [0, 1], name="raw")
    with pytest.raises(ValueError, match=r"raw holds text; .* `Dataset\.tokenize`"):
        resolve(stage(raw, partial()), None)
