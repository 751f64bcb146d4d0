"""Names of `models.bert`'s parameters in published files.

Files of Hugging Face's transformers have them behind `bert.` or, such as those of sentence
transformers, alone; in files that go back to TensorFlow, such as that of bert-base-uncased, layer
norms have a `gamma` and a `beta`.
"""

from jaxtl.pretrained.names.layered import layered, places, torch_names
from jaxtl.pretrained.names.scheme import Entry, Scheme

_BERT = {
    "embed/tokens": "embeddings.word_embeddings",
    "embed/positions": "embeddings.position_embeddings",
    "embed/segments": "embeddings.token_type_embeddings",
    "embed/norm": "embeddings.LayerNorm",
    "layer_*/attention/query": "encoder.layer.*.attention.self.query",
    "layer_*/attention/key": "encoder.layer.*.attention.self.key",
    "layer_*/attention/value": "encoder.layer.*.attention.self.value",
    "layer_*/attention/out": "encoder.layer.*.attention.output.dense",
    "layer_*/norm_1": "encoder.layer.*.attention.output.LayerNorm",
    "layer_*/mlp/up": "encoder.layer.*.intermediate.dense",
    "layer_*/mlp/down": "encoder.layer.*.output.dense",
    "layer_*/norm_2": "encoder.layer.*.output.LayerNorm",
    "pool/dense": "pooler.dense",
    "heads/*": "classifier",
}
_DISTILBERT = {
    "embed/tokens": "embeddings.word_embeddings",
    "embed/positions": "embeddings.position_embeddings",
    "embed/norm": "embeddings.LayerNorm",
    "layer_*/attention/query": "transformer.layer.*.attention.q_lin",
    "layer_*/attention/key": "transformer.layer.*.attention.k_lin",
    "layer_*/attention/value": "transformer.layer.*.attention.v_lin",
    "layer_*/attention/out": "transformer.layer.*.attention.out_lin",
    "layer_*/norm_1": "transformer.layer.*.sa_layer_norm",
    "layer_*/mlp/up": "transformer.layer.*.ffn.lin1",
    "layer_*/mlp/down": "transformer.layer.*.ffn.lin2",
    "layer_*/norm_2": "transformer.layer.*.output_layer_norm",
}
# 0, 1, 2, ...; 0, 0, 0, ...; and what a model without pooler leaves out.
_IGNORED = (
    r"(.*\.)?embeddings\.position_ids",
    r"(.*\.)?embeddings\.token_type_ids",
    r"(bert\.)?pooler\.dense\.(weight|bias)",
)
# Of masked words, of next sentences, of classes, of answers.
_HEADS = (
    r"cls\.(predictions|seq_relationship)\..*",
    r"vocab_(transform|layer_norm|projector)\.(weight|bias)",
    r"(pre_classifier|classifier|qa_outputs)\..*",
)
_CONFIG = {
    "model_type": ("bert",),
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
}
_DISTILBERT_CONFIG = {"model_type": ("distilbert",), "activation": ("gelu",)}


def _scheme(name: str, table: dict[str, Entry], prefix: str = "") -> Scheme:
    title = f"{name} with the prefix {prefix}" if prefix else name
    config = _DISTILBERT_CONFIG if name == "DistilBERT" else _CONFIG
    entry, inverse = layered(table, prefix), places(table, prefix)
    return Scheme(title, entry, _IGNORED, heads=_HEADS, config=config, places=inverse)


BERT = (
    _scheme("BERT", torch_names(_BERT)),
    _scheme("BERT", torch_names(_BERT), "bert."),
    _scheme("BERT with gamma and beta", torch_names(_BERT, ("gamma", "beta")), "bert."),
    _scheme("DistilBERT", torch_names(_DISTILBERT)),
    _scheme("DistilBERT", torch_names(_DISTILBERT), "distilbert."),
)
"""Published names of `models.bert`. A classifier of DistilBERT has a layer more than a head.

The number of attention heads, and without a `config.json` beside the file the activation, do not
show in the arrays: they are those of the model."""
