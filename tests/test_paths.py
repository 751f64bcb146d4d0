import pytest

from jaxtl import paths

TREE = {"backbone": {"conv_0": {"kernel": 1, "bias": 2}, "conv_1": {"kernel": 3}}, "head": {"b": 4}}


def test_flatten_and_nest_are_inverse():
    flat = paths.flatten(TREE)
    assert flat["backbone/conv_0/bias"] == 2 and len(flat) == 4
    assert paths.nest(flat) == TREE


def test_patterns_match_whole_paths_only():
    assert paths.matches(["backbone/.*"], "backbone/conv_0/kernel")
    assert not paths.matches(["conv_0", "backbone/conv_0"], "backbone/conv_0/kernel")


def test_select_lists_every_bad_pattern_with_the_closest_paths():
    with pytest.raises(ValueError) as error:
        paths.select(["head/.*", "hed/b", "backbone/convo_1/.*", "("], paths.flatten(TREE))
    message = str(error.value)
    assert "'hed/b' matched no parameter. Closest paths: head/b" in message
    assert "backbone/conv_1/kernel" in message and "'(' is not a regular expression" in message
    assert "'head/.*'" not in message


def test_the_first_group_takes_a_path_and_frozen_may_be_a_group():
    labels = paths.label(
        paths.flatten(TREE), {"frozen": ["backbone/conv_0/.*"], "all": ["backbone/.*"]}
    )
    assert labels == {
        "backbone/conv_0/kernel": "frozen",
        "backbone/conv_0/bias": "frozen",
        "backbone/conv_1/kernel": "all",
        "head/b": "frozen",
    }


def test_a_group_that_gets_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"group 'late' .* has no parameter left"):
        paths.label(paths.flatten(TREE), {"all": [".*"], "late": ["head/.*"]})


def test_split_and_join_are_inverse_and_join_refuses_overlap():
    inside, outside = paths.split(TREE, lambda path: path.endswith("kernel"))
    assert inside == {"backbone": {"conv_0": {"kernel": 1}, "conv_1": {"kernel": 3}}}
    assert paths.join(inside, outside) == TREE
    with pytest.raises(ValueError, match="backbone/conv_1/kernel"):
        paths.join(inside, TREE)


def test_unknown_names_the_closest():
    message = paths.unknown("backbone", "resnet55", ["lenet", "resnet50"])
    assert (
        message == "unknown backbone 'resnet55'. Did you mean 'resnet50'? Known: lenet, resnet50."
    )


KINDS = (
    "accuracy balanced_accuracy f1_macro loss ece brier auroc auprc nll mae rmse r2 top5_accuracy"
)
METRICS = [f"{e}/{k}" for e in ("target", "source", "validation") for k in KINDS.split()]
FIELDS = (
    "--seeds --workdir --arms --run.tensorboard --run.dtype --run.checkpoint_every "
    "--config.labels_per_class --config.batch_size --config.source_steps --config.dropout "
    "--config.learning_rate --config.weight_decay --config.hidden --config.num_steps "
    "--config.optimizer.learning_rate --config.optimizer.nesterov --run.eval_batch"
)
ARMS = (
    "scratch full partial probe full_with_head lora linear_probe fine_tune cdan cdan_e source_only"
)
DATASETS = "mnist fashion_mnist cifar10 cifar100 emnist usps svhn_cropped imdb_reviews office31"
CLASSES = "cat dog airplane automobile bird frog ship truck virginica versicolor setosa"


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (
            METRICS,
            {
                "target/acc": "target/accuracy",
                "target/acuracy": "target/accuracy",
                "target.accuracy": "target/accuracy",
                "Target/Accuracy": "target/accuracy",
                "targt/accuracy": "target/accuracy",
                "src/accuracy": "source/accuracy",
                "val/acc": "validation/accuracy",
                "target/bal_acc": "target/balanced_accuracy",
                "target/f1": "target/f1_macro",
                "target/macro_f1": "target/f1_macro",
                "target/top5": "target/top5_accuracy",
                "target/roc_auc": "target/auroc",
                "target/los": "target/loss",
            },
        ),
        (
            FIELDS.split(),
            {
                "--config.lr": "--config.learning_rate",
                "--config.learning-rate": "--config.learning_rate",
                "--config.bs": "--config.batch_size",
                "--config.wd": "--config.weight_decay",
                "--config.batch": "--config.batch_size",
                "--config.steps_source": "--config.source_steps",
                "--config.optim.lr": "--config.optimizer.learning_rate",
                "--run.tensor_board": "--run.tensorboard",
                "--run.checkpoint": "--run.checkpoint_every",
                "--seed": "--seeds",
                "--learning_rate": "--config.learning_rate",
            },
        ),
        (
            ARMS.split(),
            {
                "prob": "probe",
                "linear": "linear_probe",
                "fine-tune": "fine_tune",
                "finetune": "fine_tune",
                "cdane": "cdan_e",
                "CDAN": "cdan",
                "source": "source_only",
                "sctrach": "scratch",
                "full_head": "full_with_head",
            },
        ),
        (
            DATASETS.split(),
            {
                "minst": "mnist",
                "cifar": "cifar10",
                "cifar-100": "cifar100",
                "FashionMNIST": "fashion_mnist",
                "svhn": "svhn_cropped",
                "imdb": "imdb_reviews",
                "office-31": "office31",
            },
        ),
        (CLASSES.split(), {"Dog": "dog", "plane": "airplane", "auto": "automobile"}),
        (CLASSES.split(), {"iris-setosa": "setosa", "car": "cat"}),
        (["float32", "bfloat16"], {"bf16": "bfloat16", "fp32": "float32", "f32": "float32"}),
        (["train", "test", "validation"], {"val": "validation", "training": "train"}),
    ],
)
def test_the_closest_name_is_the_one_that_was_meant(names, meant):
    assert {name: paths.closest(name, names)[0] for name in meant} == meant


def test_nothing_is_suggested_for_what_is_like_nothing():
    for name in ("zzz", "qwerty", "", "0", "腕"):
        assert paths.closest(name, METRICS) == []
        assert "Did you mean" not in paths.unknown("metric", name, METRICS)


def test_many_names_are_neither_all_compared_nor_all_listed():
    names = [f"class number {i}" for i in range(100_000)]
    assert paths.closest("clas number 77", names, 1) == ["class number 77"]
    message = paths.unknown("class", 7, names)
    assert len(message) < 2_000 and message.endswith("and 99,940 more.")


def test_a_name_of_something_else_is_suggested_but_not_listed():
    message = paths.unknown("field", "--config.seeds", ["--config.seed"], ["--seeds", "--arms"])
    assert message == (
        "unknown field '--config.seeds'. Did you mean '--seeds'? Known: --config.seed."
    )
