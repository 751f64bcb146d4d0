"""Files of other architectures: refused, with what it means where the names tell."""

import functools
import json
import re
import time

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxtl import models, pretrained
from jaxtl.models import BertConfig, ViTConfig
from jaxtl.paths import flatten
from jaxtl.plan.reading import Wanted
from jaxtl.pretrained.names.vit import big_vision

TEXT = {name: np.ones((1, 4), np.int32) for name in ("ids", "mask")}
IMAGE = np.zeros((1, 8, 8, 3), np.float32)
HEADS = {"classes": models.classes(3)}
LITE = pretrained.efficientnet_lite("lite0")


def leaves(model, inputs):
    trees = jax.eval_shape(model.init, jax.random.key(0), inputs)
    return {path: leaf for tree in trees for path, leaf in flatten(tree).items()}


def bert(segments=2, positions=12):
    config = BertConfig(8, 2, 2, 12, 20, positions, segments)
    return leaves(models.bert(config, HEADS), TEXT)


def vit(pooling="cls"):
    return leaves(models.vit(ViTConfig(4, 8, 2, 2, 12), HEADS, 8, pooling=pooling), IMAGE)


def images(model):
    return leaves(model, np.zeros((1, 64, 64, 3), np.float32))


MODELS = {  # {name: (leaves, schemes, of which the first names the file's arrays)}
    "resnet": (images(models.resnet("resnet18", HEADS)), pretrained.RESNET),
    "lite": (images(models.efficientnet_lite("lite0", HEADS)), LITE),
    "bert": (bert(), pretrained.BERT),
    "distilbert": (bert(segments=0), pretrained.BERT[3:4]),
    "vit": (vit(), pretrained.VIT),
    "hf_vit": (vit(), pretrained.VIT[2:3]),
    "mean": (vit("mean"), pretrained.VIT),
    "big_vision": (vit(), [big_vision(head_width=4)]),
}


def arrays(wanted, schemes):
    """A file in which a model's leaves are constants, by the names of the first scheme."""
    parts = {}
    for path, entry in schemes[0].entries(wanted).items():
        leaf = np.full(wanted[path].shape, 0.5, np.float32)
        parts.setdefault(entry.name, {})[entry.part] = entry.layout.write(leaf)
    return {name: np.concatenate([p[i] for i in sorted(p)]) for name, p in parts.items()}


FILES = {name: arrays(*row) for name, row in MODELS.items()}
HARMLESS = {
    "resnet": ["bn1.num_batches_tracked", "fc.0.weight", "fc.2.bias"],
    "lite": ["_bn0.num_batches_tracked"],
    "bert": [
        *("embeddings.position_ids", "embeddings.token_type_ids", "pooler.dense.weight"),
        *("cls.predictions.bias", "cls.seq_relationship.weight", "qa_outputs.bias"),
    ],
    "distilbert": ["vocab_transform.weight", "vocab_projector.bias", "pre_classifier.weight"],
    "vit": ["mask_token", "head.weight", "heads/mine/kernel", "heads/mine/bias"],
    "hf_vit": ["pooler.dense.weight", "embeddings.mask_token"],
    "mean": [],
}
# (model, names of more arrays, what is said)
FOREIGN = [
    ("vit", "blocks.0.ls1.gamma blocks.1.ls2.gamma", "LayerScale"),
    ("vit", "blocks.0.gamma_1 blocks.0.gamma_2", "LayerScale"),
    ("hf_vit", "encoder.layer.0.layer_scale1.lambda1", "LayerScale"),
    ("vit", "reg_token", "register tokens"),
    ("hf_vit", "embeddings.register_tokens", "register tokens"),
    ("vit", "blocks.0.attn.q_norm.weight blocks.0.attn.k_norm.weight", "norms of queries"),
    ("vit", "fc_norm.weight fc_norm.bias", "mean of the tokens instead"),
    ("vit", "norm_pre.weight norm_pre.bias", "norm before the first layer"),
    ("vit", "dist_token head_dist.weight head_dist.bias", "distillation token of DeiT"),
    ("vit", "pre_logits.fc.weight pre_logits.fc.bias", "pre_logits"),
    ("big_vision", "pre_logits/kernel pre_logits/bias", "pre_logits"),
    ("vit", "blocks.0.attn.relative_position_bias_table", "relative positions"),
    ("vit", "rel_pos_bias.relative_position_bias_table", "relative positions"),
    (
        "vit",
        "blocks.2.norm1.weight blocks.3.norm1.weight",
        r"blocks\.\* has 4 layers in the file, 2",
    ),
    ("big_vision", "Transformer/encoderblock_2/LayerNorm_0/scale", r"encoderblock_\* has 3 layers"),
    ("vit", "blocks.0.mlp.norm.weight", "no array of the model"),
    ("mean", "cls_token", "class token, .* mean"),
    (
        "resnet",
        "layer1.2.conv1.weight layer1.2.bn1.weight",
        r"layer1\.\* has 3 layers .*, 2 in the",
    ),
    ("resnet", "layer1.0.se.fc1.weight layer1.0.se.fc2.bias", "squeeze-and-excitation"),
    ("resnet", "layer2.0.se_module.fc1.weight", "squeeze-and-excitation"),
    ("resnet", "layer2.0.conv2.1.filt layer2.0.downsample.2.filt", "BlurPool"),
    ("resnet", "conv1.gain layer1.0.conv1.gain", "standardises"),
    ("resnet", "conv1.bias", "biases that this model"),
    ("lite", "_blocks.1._se_reduce.weight _blocks.1._se_expand.bias", "squeeze-and-excitation"),
    ("lite", "_blocks.16._bn1.weight", r"_blocks\.\* has 17 layers in the file, 16 in the model"),
    ("bert", "encoder.layer.2.output.dense.bias", r"encoder\.layer\.\* has 3 layers .*, 2 in the"),
    ("bert", "lm_head.dense.weight lm_head.bias", "RoBERTa"),
    ("bert", "embeddings_project.weight embeddings_project.bias", "ELECTRA"),
    ("bert", "encoder.layer.0.attention.self.distance_embedding.weight", "relative positions"),
    ("bert", "encoder.layer.0.crossattention.self.query.weight", "adapters"),
    ("bert", "encoder.layer.0.output.adapters.x.down.weight", "adapters"),
    ("distilbert", "embeddings.token_type_embeddings.weight", "token types"),
    ("distilbert", "transformer.layer.2.ffn.lin1.bias", r"layer\.\* has 3 layers in the file, 2"),
]


@pytest.fixture
def load(tmp_path):
    """(name of a model, more arrays, options) -> what reading gives."""

    def read(model, more=(), wanted=None, drop=(), config=None, **options):
        file = {n: a for n, a in FILES[model].items() if n not in drop}
        extra = more if isinstance(more, dict) else {n: np.ones(2, np.float32) for n in more}
        save_file(file | extra, tmp_path / "a.safetensors")
        if config is not None:
            (tmp_path / "config.json").write_text(json.dumps(config))
        weights = pretrained.weights(tmp_path / "a.safetensors", MODELS[model][1], **options)
        backbone = {p: x for p, x in MODELS[model][0].items() if p.startswith("backbone/")}
        return weights.read(backbone if wanted is None else wanted)

    return read


@pytest.mark.parametrize(("model", "names", "meaning"), FOREIGN)
def test_what_the_model_does_not_compute_is_refused_unless_it_is_named(load, model, names, meaning):
    names = sorted(names.split())
    with pytest.raises(ValueError) as caught:
        load(model, names)
    lines = str(caught.value).splitlines()
    assert "the file's network computes something else" in lines[0]
    assert re.search(meaning, lines[1])
    assert lines[1].endswith(f"({len(names)}): {', '.join(names)}")
    assert "name in `unused`" in lines[2] and len(lines) == 3
    result, report = load(model, names, unused=tuple(map(re.escape, names)))
    assert all(name in report.splitlines()[-1] for name in names)
    assert result.keys() == {p for p in MODELS[model][0] if p.startswith("backbone/")}


@pytest.mark.parametrize("model", HARMLESS)
def test_classifiers_counters_and_what_else_is_harmless_may_be_left_out(load, model):
    result, _ = load(model, HARMLESS[model])
    assert all(np.all(leaf == 0.5) for leaf in result.values())


def test_a_long_list_is_cut_and_counted(load):
    with pytest.raises(ValueError, match=r"squeeze.* \(40\): layer.*, \.\.\. and 30 more"):
        load("resnet", [f"layer1.{i}.se.fc.weight" for i in range(40)])


def test_kinds_are_told_apart_and_all_are_listed(load):
    with pytest.raises(ValueError) as caught:
        load("vit", ["reg_token", "blocks.0.ls1.gamma", "blocks.2.norm1.bias", "strange"])
    assert len(str(caught.value).splitlines()) == 6


def test_what_starts_anew_is_not_missed_in_the_file(load):
    everything = MODELS["vit"][0]
    anew = [path for path in everything if "layer_1/" in path]
    wanted = {p: x for p, x in everything.items() if p not in anew and p.startswith("backbone/")}
    _, report = load("vit", wanted=Wanted(wanted, others=anew))
    assert "unused in the file" in report and "blocks.1.norm1.weight" in report
    with pytest.raises(
        ValueError, match=r"a deeper network: blocks\.\* has 2 layers in the file, 1"
    ):
        load("vit", wanted=wanted)
    with pytest.raises(ValueError, match=r"blocks\.\* has 3 layers"):
        load("vit", ["blocks.2.norm1.weight"], Wanted(wanted, others=anew))


def test_patterns_of_unused_arrays_must_match_what_is_not_used(load):
    with pytest.raises(ValueError, match=r"pattern 'reg.*' matched no array of the file. Closest"):
        load("vit", unused=("reg.*",))
    with pytest.raises(
        ValueError, match=r"`unused` .* matches what the model reads: blocks.0.attn"
    ):
        load("vit", unused=("blocks.0.*",))
    with pytest.raises(ValueError, match="is not a regular expression"):
        load("vit", unused=("(",))


def test_arguments_of_another_kind():
    with pytest.raises(ValueError, match=r"unused must be .* got 'a.\*'"):
        pretrained.weights("a.npz", pretrained.RESNET, unused="a.*")
    for schemes in ((), ("resnet",), "resnet18"):
        with pytest.raises(ValueError, match=r"schemes.* pretrained.RESNET"):
            pretrained.weights("a.npz", schemes)
    with pytest.raises(ValueError, match="head must be text, got"):
        pretrained.weights("a.npz", pretrained.RESNET, head=("imagenet",))
    assert pretrained.weights("a.npz", LITE[0]) == pretrained.weights("a.npz", LITE[:1])


def test_a_head_that_is_not_there(load):
    everything = MODELS["resnet"][0]
    with pytest.raises(ValueError, match=r"unknown head 'clases'. Did you mean 'classes'\?"):
        load("resnet", wanted=everything, head="clases")
    with pytest.raises(ValueError, match=r"heads/classes/kernel: no fc.weight in the file"):
        load("resnet", wanted=everything, head="classes", drop=("fc.weight",))
    result, _ = load("resnet", wanted=everything, head="classes")
    assert result.keys() == everything.keys()


def test_roberta_behind_the_names_of_bert(load):
    wanted = {p: x for p, x in bert(1, 514).items() if p.startswith("backbone/")}
    more = {
        "embeddings.position_embeddings.weight": np.ones((514, 8), np.float32),
        "embeddings.token_type_embeddings.weight": np.ones((1, 8), np.float32),
    }
    with pytest.raises(ValueError, match="514 positions and one token type are those of RoBERTa"):
        load("bert", more, wanted)


@pytest.mark.parametrize("prefix", ["roberta.", "electra.", "encoder_q."])
def test_names_behind_another_prefix(tmp_path, prefix):
    file = {prefix + name: array for name, array in FILES["bert"].items()}
    save_file(file, tmp_path / "a.safetensors")
    wanted = {p: x for p, x in MODELS["bert"][0].items() if p.startswith("backbone/")}
    with pytest.raises(ValueError) as caught:
        pretrained.weights(tmp_path / "a.safetensors", pretrained.BERT).read(wanted)
    assert f"the names stand behind '{prefix}'" in str(caught.value)
    meanings = {"roberta.": "positions start at 2", "electra.": "ELECTRA", "encoder_q.": ""}
    assert meanings[prefix] in str(caught.value)


@pytest.mark.parametrize(
    "prefix", ["model.", "_orig_mod.", "backbone.", "module._orig_mod.", "model.backbone."]
)
@pytest.mark.parametrize("others", [{}, {"criterion.weight": np.ones(3, np.float32)}])
def test_prefixes_of_wrappers_come_off(tmp_path, prefix, others):
    file = {prefix + name: array for name, array in FILES["resnet"].items()} | others
    save_file(file, tmp_path / "a.safetensors")
    wanted, unused = MODELS["resnet"][0], ("criterion.*",) if others else ()
    weights = pretrained.weights(
        tmp_path / "a.safetensors", pretrained.RESNET, head="classes", unused=unused
    )
    result, report = weights.read(wanted)
    assert result.keys() == wanted.keys()
    assert report.splitlines()[0].endswith(f"behind {prefix!r}")


def test_a_network_that_stands_in_the_file_twice(tmp_path):
    ours = FILES["bert"]
    other = {name: array + 1 for name, array in ours.items()}
    read = functools.partial(pretrained.weights, tmp_path / "a.safetensors", pretrained.BERT)
    wanted = {p: x for p, x in MODELS["bert"][0].items() if p.startswith("backbone/")}
    path, name = "backbone/embed/tokens/embedding", "embeddings.word_embeddings.weight"
    for first, second in (("", "model."), ("backbone.", "model."), ("student.", "teacher.")):
        file = {first + name: array for name, array in ours.items()}
        file |= {second + name: array for name, array in other.items()}
        save_file(file, tmp_path / "a.safetensors")
        wrapped = second == "model."
        said = f"stand in the file more than once, behind '{first}', '{second}'; say which"
        with pytest.raises(ValueError, match=said if wrapped else "give it as `prefix`"):
            read().read(wanted)
        for prefix, arrays in ((first, ours), (second, other)):
            if prefix:
                leaves, report = read(prefix=prefix).read(wanted)
                np.testing.assert_array_equal(leaves[path], arrays[name])
                assert f"names behind {prefix!r}, not the other {len(ours)}" in report
        if wrapped:
            leaves, _ = read(unused=(r"model\..*",)).read(wanted)
            np.testing.assert_array_equal(leaves[path], ours[name])
    with pytest.raises(ValueError, match=r"unknown prefix 'studnt.'. Did you mean 'student.'"):
        read(prefix="studnt.").read(wanted)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "roberta"}, 'model_type "roberta", expected "bert"'),
        ({"hidden_act": "gelu_new"}, 'hidden_act "gelu_new", expected "gelu"'),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder true, expected false"),
    ],
)
def test_a_configuration_beside_the_file_is_compared(load, config, message):
    with pytest.raises(ValueError, match=f"config.json beside it says {message}"):
        load("bert", config=config)


def test_a_configuration_that_fits_or_is_of_something_else(load):
    for config in ({"model_type": "bert", "hidden_act": "gelu"}, {"seeds": 5}, []):
        load("bert", config=config)


def numbers(dtype=np.float32, value=0.5):
    return {"conv1.weight": np.full((64, 3, 7, 7), value).astype(dtype)}


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint8", "bool"])
def test_numbers_that_are_no_floats_are_refused(load, dtype):
    with pytest.raises(
        ValueError, match=f"stem/kernel: file {dtype} .conv1.weight., model float32"
    ):
        load("resnet", numbers(dtype))


@pytest.mark.parametrize(("dtype", "value"), [("f4", np.nan), ("f2", np.inf), ("f8", 1e300)])
def test_numbers_that_are_not_finite_are_refused(load, dtype, value):
    message = r"stem/kernel: 9408 of 9408 numbers of conv1.weight are not finite as float32"
    with pytest.raises(ValueError, match=message):
        load("resnet", numbers(dtype, value))


def test_a_file_that_is_half_in_half_precision(load):
    result, _ = load("resnet", numbers("f2"))
    assert all(np.all(leaf == 0.5) and leaf.dtype == np.float32 for leaf in result.values())


def test_patches_and_heads_of_another_size(load):
    with pytest.raises(ValueError, match=r"embed/patch/kernel: file \[2, 2, 3, 8\]"):
        load("vit", {"patch_embed.proj.weight": np.ones((8, 3, 2, 2), np.float32)})
    with pytest.raises(
        ValueError, match=r"layer_0/attention/value/bias: no blocks.0.attn.qkv.bias"
    ):
        load("vit", drop=("blocks.0.attn.qkv.bias",))
    name = "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel"
    with pytest.raises(ValueError, match=r"query/kernel: .*heads of width 8, by the names of .* 4"):
        load("big_vision", {name: np.ones((8, 1, 8), np.float32)})


@pytest.mark.parametrize("shape", [(), (0,), (5, 8), (2, 5, 8), (1, 0, 8), (1, 7, 8), (1, 5, 4)])
def test_positions_of_another_shape(load, shape):
    message = rf"position embeddings {re.escape(str(list(shape)))} cannot become \[1, 5, 8\]"
    with pytest.raises(ValueError, match=message):
        load("vit", {"pos_embed": np.ones(shape, np.float32)})


@pytest.mark.parametrize("shape", [(), (0,), (8,), (8, 8), (0, 0, 0)])
def test_arrays_of_another_rank(load, shape):
    name = "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/out/kernel"
    with pytest.raises(
        ValueError, match=r"cannot load 1 of 38 arrays .*\n.*attention/out/kernel: "
    ):
        load("big_vision", {name: np.ones(shape, np.float32)})
    with pytest.raises(ValueError, match=r"cannot load 3 of 38 arrays .*\n.*attention/key/"):
        load("vit", {"blocks.0.attn.qkv.weight": np.ones(shape, np.float32)})


def test_thousands_of_names_are_refused_within_seconds(load):
    names = [f"blocks.{i}." + "9999." * 12 + "weight" for i in range(4_000)]
    names.append("blocks." + "7." * 100_000)
    started = time.perf_counter()
    with pytest.raises(ValueError, match=r"no array of the model \(4001\): .* and 3991 more"):
        load("vit", names)
    with pytest.raises(ValueError, match=r"cannot load 1 of 38"):
        load("vit", names, drop=("blocks.1.mlp.fc1.bias",))
    assert time.perf_counter() - started < 20
