"""Names of `models.bert`'s parameters in published files.

Files of Hugging Face's transformers have them behind `bert.` or, such as those of sentence
transformers, alone; in files that go back to TensorFlow, such as that of bert-base-uncased, layer
norms have a `gamma` and a `beta`.
"""

from jaxtl.pretrained.layered import layered, torch_names
from jaxtl.pretrained.scheme import Entry, Scheme

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
_COUNTER = (r"(.*\.)?embeddings\.position_ids",)  # 0, 1, 2, ...


def _scheme(name: str, table: dict[str, Entry], prefix: str = "") -> Scheme:
    title = f"{name} with the prefix {prefix}" if prefix else name
    return Scheme(title, layered(table, prefix), ignored=_COUNTER)


BERT = (
    _scheme("BERT", torch_names(_BERT)),
    _scheme("BERT", torch_names(_BERT), "bert."),
    _scheme("BERT with gamma and beta", torch_names(_BERT, ("gamma", "beta")), "bert."),
    _scheme("DistilBERT", torch_names(_DISTILBERT)),
    _scheme("DistilBERT", torch_names(_DISTILBERT), "distilbert."),
)
"""Published names of `models.bert`. A classifier of DistilBERT has a layer more than a head."""
