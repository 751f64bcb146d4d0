"""Adapters in PEFT's files: those that it wrote give its outputs, and ours read back the same.

`peft_files/` was written by `python peft_package.py peft_files` with peft 0.21 and transformers 5.
"""

import functools
import json
import shutil
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxtl import models, paths, pretrained
from jaxtl.export.adapters import write_adapters
from jaxtl.models import BertConfig, ViTConfig, adapters, classes
from jaxtl.plan.reading import Wanted

FILES = Path(__file__).with_name("peft_files")
SIZE = BertConfig(8, 2, 2, 16, 20, 12)
HEADS = {"topic": classes(3)}
TEXT = {name: np.ones((1, 4), np.int32) for name in ("ids", "mask")}


def text_model():
    return models.bert(SIZE, HEADS, "pooler")


def image_model():
    return models.vit(ViTConfig(4, 8, 1, 2, 16), HEADS, 8, normalize=None)


def expected(name):
    """(inputs as our model takes them, PEFT's outputs)."""
    with np.load(FILES / name / "expected.npz") as file:
        given = dict(file)
    if name == "vit":
        return given["pixel_values"].transpose(0, 2, 3, 1), given["outputs"]
    keys = {"ids": "input_ids", "mask": "attention_mask"}
    return {ours: given[theirs].astype(np.int32) for ours, theirs in keys.items()}, given["outputs"]


ROWS = {  # {folder: (model, schemes, head, what PEFT's outputs are)}
    "lora": (text_model, pretrained.BERT, "topic", lambda out: out["logits"]["topic"]),
    "dora": (text_model, pretrained.BERT, None, lambda out: out["features"]),
    "vit": (image_model, pretrained.VIT, "topic", lambda out: out["logits"]["topic"]),
}


def base_of(name, head=None):
    return pretrained.weights(FILES / name / "base.safetensors", ROWS[name][1], head=head)


def wanted_of(model, inputs, fresh=()):
    flat = paths.flatten(jax.eval_shape(model.init, jax.random.key(0), inputs)[0])
    return Wanted({p: x for p, x in flat.items() if not paths.matches(fresh, p)}, fresh)


def drawn(model, inputs):
    """Random parameters of a model."""
    rng = np.random.default_rng(0)
    shapes, _ = jax.eval_shape(model.init, jax.random.key(0), inputs)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def folded(model, params):
    """{path: leaf} without adapters."""
    while model.adapters:
        model, params = model.merge(params)
    return paths.flatten(params)


def near(found, other):
    assert found.keys() == other.keys()
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, other[path], rtol=1e-5, atol=1e-5, err_msg=path)


@functools.cache
def loaded(name):
    """(adapted model, params, report) of PEFT's file."""
    build, schemes, head, _ = ROWS[name]
    adapter = pretrained.peft(FILES / name, schemes, head=head)
    model = adapter.attach(build())
    inputs = expected(name)[0]
    fresh = () if head else ("heads/topic/kernel", "heads/topic/bias")
    leaves, report = adapter.over(base_of(name)).read(wanted_of(model, inputs, fresh))
    if not head:
        leaves |= {"heads/topic/kernel": np.zeros((8, 3)), "heads/topic/bias": np.zeros(3)}
    return model, paths.nest(leaves), report


@pytest.mark.parametrize("name", ROWS)
def test_peft_s_adapters_give_its_outputs(name):
    model, params, report = loaded(name)
    inputs, outputs = expected(name)
    run = jax.jit(lambda params: ROWS[name][-1](model.apply(params, {}, inputs)[0]))
    np.testing.assert_allclose(run(params), outputs, atol=1e-5)
    zero = {p: 0 * x if p.endswith("/b") else x for p, x in paths.flatten(params).items()}
    assert np.abs(run(paths.nest(zero)) - outputs).max() > 1e-2
    assert report.splitlines()[2] == "  unused in the file (0): none"


def test_ranks_and_scales_of_a_file_that_has_several():
    model, params, _ = loaded("lora")
    shapes = {
        name: {p.removeprefix("backbone/"): x.shape for p, x in paths.flatten(params[name]).items()}
        for name in ("lora", "lora_2", "lora_3")
    }
    assert shapes["lora"]["layer_0/attention/query/a"] == (8, 2)
    assert shapes["lora_2"]["layer_0/mlp/up/b"] == (3, 16)
    assert set(shapes["lora_3"]) == {f"layer_1/attention/query/{leaf}" for leaf in "ab"}
    assert [adapter.name for adapter in model.adapters] == list(shapes)


@pytest.mark.parametrize("name", ROWS)
def test_what_is_written_reads_back(tmp_path, name):
    model, params, _ = loaded(name)
    build, schemes, head, _ = ROWS[name]
    report = pretrained.save_peft(tmp_path, model, params, schemes, head=head, base=base_of(name))
    adapter = pretrained.peft(tmp_path, schemes, head=head)
    again, inputs = adapter.attach(build()), expected(name)[0]
    fresh = () if head else ("heads/topic/kernel", "heads/topic/bias")
    leaves, _ = adapter.over(base_of(name)).read(wanted_of(again, inputs, fresh))
    if not head:
        leaves |= {p: x for p, x in paths.flatten(params).items() if p.startswith("heads/")}
    near(folded(again, paths.nest(leaves)), folded(model, params))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["use_dora"] == (name == "dora") and "kernels by the names of" in report
    if name == "lora":  # the names and arrays are those that PEFT writes
        theirs, ours = (
            pretrained.files.read_file(folder / "adapter_model.safetensors").arrays
            for folder in (FILES / name, tmp_path)
        )
        assert theirs.keys() == ours.keys()
        for key, array in theirs.items():
            np.testing.assert_array_equal(ours[key], array, err_msg=key)


@pytest.mark.parametrize(
    "build", [adapters.pissa, adapters.adalora, adapters.vera, adapters.rslora]
)
def test_other_products_become_lora(tmp_path, build):
    tuned = build(text_model(), ["backbone/.*/(query|up)/kernel"], 3)
    params = drawn(tuned, TEXT)
    pretrained.save_peft(tmp_path, tuned, params, pretrained.BERT)
    adapter = pretrained.peft(tmp_path, pretrained.BERT)
    bare = {part: params[part] for part in ("backbone", "heads")}
    leaves = paths.nest({**paths.flatten(bare), **adapter.leaves()})
    near(folded(adapter.attach(text_model()), leaves), folded(tuned, params))


def test_queries_keys_and_values_in_one_matrix(tmp_path):
    timm = [scheme for scheme in pretrained.VIT if scheme.name == "timm"]
    tuned = adapters.lora(image_model(), ["backbone/.*/(query|value)/kernel"], 2, 6.0)
    params = drawn(tuned, expected("vit")[0])
    pretrained.save_peft(tmp_path, tuned, params, timm)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == ["blocks.0.attn.qkv"] and config["r"] == 4
    adapter = pretrained.peft(tmp_path, timm)
    bare = {part: params[part] for part in ("backbone", "heads")}
    leaves = paths.nest({**paths.flatten(bare), **adapter.leaves()})
    assert set(leaves["lora"]["backbone"]["layer_0"]["attention"]) == {"query", "key", "value"}
    near(folded(adapter.attach(image_model()), leaves), folded(tuned, params))


def test_what_else_has_changed_is_written_whole(tmp_path):
    model, params, _ = loaded("lora")
    flat = paths.flatten(params)
    norm = "backbone/layer_1/norm_1/scale"
    changed = paths.nest({**flat, norm: flat[norm] + 1})
    save = functools.partial(
        pretrained.save_peft, tmp_path, model, schemes=pretrained.BERT, base=base_of("lora")
    )
    save(params=changed, head="topic")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    norms = "bert.encoder.layer.1.attention.output.LayerNorm"
    assert config["modules_to_save"] == [norms, "classifier"]
    adapter = pretrained.peft(tmp_path, pretrained.BERT, head="topic")
    leaves, report = adapter.over(base_of("lora")).read(
        wanted_of(adapter.attach(text_model()), TEXT)
    )
    np.testing.assert_array_equal(leaves[norm], flat[norm] + 1)
    assert norm in report.splitlines()[1]
    kernel = "backbone/layer_0/attention/query/kernel"
    with pytest.raises(ValueError, match="trained beside their adapters are no form of PEFT"):
        save(params=paths.nest({**flat, kernel: flat[kernel] + 1}))


def test_a_trained_model_leaves_as_an_adapter(tmp_path):
    model, params, _ = loaded("lora")
    whole = pretrained.peft(FILES / "lora", pretrained.BERT, head="topic").over(base_of("lora"))
    for weights in (base_of("lora"), whole):
        stage = types.SimpleNamespace(name="adapt", weights=weights)
        predictor = types.SimpleNamespace(model=model, params=params, stages=(stage,))
        notes = write_adapters(predictor, tmp_path / "a.peft")
        assert notes == {"names": str(FILES / "lora/base.safetensors"), "head": "topic"}
        assert "peft_type" in (tmp_path / "a.peft" / "adapter_config.json").read_text()
    stage.weights = None
    with pytest.raises(ValueError, match="stage 'adapt' starts from no published weights"):
        write_adapters(predictor, tmp_path / "b.peft")


def edited(folder, **changes):
    shutil.copytree(FILES / "lora", folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    return pretrained.peft(folder, pretrained.BERT, head="topic")


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"peft_type": "IA3"}, 'peft_type "IA3", expected LORA'),
        ({"r": "x"}, "could not convert string to float"),
        ({"lora_alpha": -1}, "expected positive numbers"),
        ({"lora_bias": True}, "lora_bias true"),
        ({"init_lora_weights": "pissa_niter_4"}, "which changed the base's kernels"),
        ({"use_dora": True}, r"has \['a', 'b'\], expected \['a', 'b', 'magnitude'\]"),
    ],
)
def test_configs_that_say_something_else(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said) as error:
        edited(tmp_path / "x", **changes).attach(text_model())
    assert str(tmp_path / "x") in str(error.value)


def test_what_does_not_fit():
    other = pretrained.peft(FILES / "lora", pretrained.VIT)
    with pytest.raises(ValueError, match=r"bert\.encoder\.layer\.0.*has no place by the names of"):
        other.attach(text_model())
    adapter = pretrained.peft(FILES / "lora", pretrained.BERT, head="topic")
    small = adapter.attach(models.bert(BertConfig(8, 1, 2, 16, 20, 12), HEADS, "pooler"))
    with pytest.raises(ValueError, match=r"layer_1.*matched no kernel"):
        jax.eval_shape(small.init, jax.random.key(0), TEXT)
    with pytest.raises(ValueError, match="the model has no such adapter"):
        adapter.over(base_of("lora")).read(wanted_of(text_model(), TEXT))
    missing = pretrained.peft(FILES / "nowhere", pretrained.BERT)
    with pytest.raises(ValueError, match=r"adapter_config.json: there is no such file"):
        missing.attach(text_model())
    tuned = adapters.houlsby(text_model())
    with pytest.raises(ValueError, match="'houlsby' has no form of LoRA or DoRA"):
        pretrained.save_peft("x", tuned, {}, pretrained.BERT)
    with pytest.raises(ValueError, match="no adapter; attach one"):
        pretrained.save_peft("x", text_model(), {}, pretrained.BERT)


def test_the_package_reads_what_is_written(tmp_path):
    pytest.importorskip("peft")
    import peft_package

    for name, (_, schemes, head, _) in ROWS.items():
        model, params, _ = loaded(name)
        folder = tmp_path / name
        pretrained.save_peft(folder, model, params, schemes, head=head)
        found = peft_package.outputs_of(name, FILES / name / "base.safetensors", folder)
        np.testing.assert_allclose(found, expected(name)[1], atol=1e-5, err_msg=name)
