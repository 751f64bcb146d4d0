"""Stages that draw episodes and evaluations on them, through a whole run."""

import numpy as np
import optax
import pytest

import jaxtl
from jaxtl import data, models
from jaxtl.methods import fewshot, transfer
from jaxtl.metrics import few_shot, few_shot_regression
from jaxtl.plan import Experiment, Stage, episodes, labelled, maximize, unlabelled
from jaxtl.train.feed.episodes import EpisodeOrder, groups_of

WAYS, SHOTS, QUERIES, TASKS = 3, 2, 4, 40
CLASSES = 8
FORM = {"ways": WAYS, "shots": SHOTS, "queries": QUERIES}


def blobs(name, seed):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLASSES, 6)) * 1.5
    labels = np.repeat(np.arange(CLASSES), 12)
    inputs = centres[labels] + rng.normal(size=(len(labels), 6))
    return data.arrays(inputs.astype(np.float32), labels, name=name)


TRAIN, TEST = blobs("train", 0), blobs("test", 1)
MODEL = models.mlp({"way": models.classes(WAYS), "all": models.classes(CLASSES)}, hidden=(16,))
ADAM, INNER = optax.adam(1e-2), optax.sgd(0.5)


def stage(name, method, domain=None, steps=8, **more):
    domain = domain or episodes(TRAIN, "way", **FORM)
    return Stage(name, MODEL, method, domains=[domain], batch_size=4, num_steps=steps, **more)


def experiment(arms=None, evals=None, **more):
    source = stage("source", transfer.full(ADAM), labelled(TRAIN, "all"))
    untrained = stage("plain", fewshot.untrained(fewshot.prototypical()), steps=0)
    arms = arms or {
        "plain": [source, untrained],
        "prototypical": [stage("prototypical", fewshot.episodic(fewshot.prototypical(), ADAM))],
        "maml": [stage("maml", fewshot.episodic(fewshot.maml(INNER), ADAM))],
    }
    evals = evals or {
        "own": few_shot(TEST, "way", tasks=TASKS, **FORM),
        "for_all": few_shot(TEST, "way", tasks=TASKS, learner=fewshot.prototypical(), **FORM),
    }
    primary = more.pop("primary", maximize("own", "accuracy"))
    return Experiment(
        arms=arms,
        baseline=next(iter(arms)),
        evals=evals,
        primary=primary,
        analyses=more.pop("analyses", ()),
        **more,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("episodic")
    options = {"checkpoint_every": 4, "steps_per_dispatch": 2}
    result = jaxtl.run(experiment(), seeds=2, workdir=folder, options=options, progress=False)
    return result, folder


def prototype_accuracy(features, seed):
    """Of nearest prototypes in NumPy, on the episodes that the evaluation draws for a seed."""
    form = episodes(TEST, "way", **FORM).episodes
    rows = EpisodeOrder(groups_of(TEST, form, seed), form, seed, TASKS, 1).block(0, 1)[0]
    each = np.asarray(features, np.float64)[rows]
    support = each[:, : WAYS * SHOTS].reshape(TASKS, WAYS, SHOTS, -1).mean(2)
    queries = each[:, WAYS * SHOTS :]
    nearest = ((queries[:, :, None] - support[:, None]) ** 2).sum(-1).argmin(-1)
    per_episode = (nearest == np.repeat(np.arange(WAYS), QUERIES)).mean(1)
    return per_episode.mean(), 1.959964 * per_episode.std(ddof=1) / np.sqrt(TASKS)


@pytest.mark.parametrize("arm", ["plain", "prototypical"])
def test_accuracy_is_that_of_nearest_prototypes_in_the_same_episodes(run, arm):
    result, _ = run
    inputs = TEST.table().inputs
    for place, seed in enumerate((0, 1)):
        features = result[arm].load(seed).predict(inputs)["features"]
        accuracy, margin = prototype_accuracy(features, seed)
        np.testing.assert_allclose(result[arm].metric("own/accuracy")[place], accuracy, atol=1e-6)
        np.testing.assert_allclose(
            result[arm].metric("own/accuracy_margin")[place], margin, rtol=1e-3
        )


def test_one_learner_for_all_arms_answers_the_same_episodes(run):
    result, _ = run
    for arm in ("plain", "prototypical"):
        own, for_all = (result[arm].metric(f"{name}/accuracy") for name in ("own", "for_all"))
        np.testing.assert_array_equal(own, for_all)
    own, for_all = (result["maml"].metric(f"{name}/accuracy") for name in ("own", "for_all"))
    assert (own != for_all).any(), "MAML's own answers are not those of prototypes"


def test_a_second_launch_finds_everything(run):
    _, folder = run
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("checkpoints/*/*")}
    again = jaxtl.run(experiment(), seeds=2, workdir=folder, progress=False)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("checkpoints/*/*")}
    np.testing.assert_array_equal(
        again["maml"].metric("own/accuracy"), run[0]["maml"].metric("own/accuracy")
    )


def test_other_episodes_are_another_stage(run):
    _, folder = run
    other = episodes(TRAIN, "way", **(FORM | {"queries": 5}))
    method = fewshot.episodic(fewshot.prototypical(), ADAM)
    arms = {"prototypical": [stage("prototypical", method, other)]}
    with pytest.raises(ValueError, match="prototypical"):
        jaxtl.run(experiment(arms), seeds=2, workdir=folder, progress=False)


def test_episodes_of_values_train_and_are_measured(tmp_path):
    rng = np.random.default_rng(0)
    slopes, x = rng.normal(size=(30, 1)), rng.normal(size=(30, 12))
    labels = {"y": (slopes * x).ravel().astype(np.float32), "line": np.repeat(np.arange(30), 12)}
    lines = data.arrays(x.reshape(-1, 1).astype(np.float32), labels, name="lines")
    model = models.mlp({"y": models.regression()}, hidden=(8,))
    form = {"groups": "line", "shots": (2, 5), "queries": 3}
    domain = episodes(lines, {"y": "y"}, ways=1, **form)
    arms = {
        name: [
            Stage(name, model, method, domains=[domain], batch_size=8, num_steps=steps, fresh=())
        ]
        for name, method, steps in (
            ("random", fewshot.untrained(fewshot.maml(optax.sgd(0.1))), 0),
            ("ridge", fewshot.episodic(fewshot.ridge_head(), ADAM), 60),
        )
    }
    evals = {"lines": few_shot_regression(lines, "y", column="y", tasks=50, **form)}
    result = jaxtl.run(
        Experiment(
            arms=arms, baseline="random", evals=evals, primary=jaxtl.plan.minimize("lines", "mse")
        ),
        seeds=1,
        workdir=tmp_path,
        progress=False,
    )
    assert result["ridge"].metric("lines/mse")[0] < 0.5 * result["random"].metric("lines/mse")[0]


def test_episodes_that_are_read_from_disk_train_to_the_same_bits(tmp_path):
    table = TRAIN.table()
    stored = np.lib.format.open_memmap(
        tmp_path / "inputs.npy", "w+", table.inputs.dtype, table.inputs.shape
    )
    stored[:] = table.inputs
    stored.flush()
    mapped = data.arrays(np.load(tmp_path / "inputs.npy", mmap_mode="r"), table.labels["label"])
    accuracies = []
    for dataset in (TRAIN, mapped):
        domain = episodes(dataset, "way", ways=(2, 3), shots=(1, 3), queries=4)
        method = fewshot.episodic(fewshot.prototypical(), ADAM)
        plan = experiment({"a": [stage("a", method, domain)]})
        result = jaxtl.run(plan, seeds=2, workdir=tmp_path / dataset.name, progress=False)
        accuracies.append(result["a"].metric("own/loss"))
    np.testing.assert_array_equal(*accuracies)


def prototypical(**changes):
    form = FORM | changes
    method = fewshot.episodic(fewshot.prototypical(), ADAM)
    return {"a": [stage("a", method, episodes(TRAIN, "way", **form))]}


LINES = data.arrays(
    np.zeros((30, 6), np.float32),
    {"line": np.repeat(np.arange(3), 10), "y": np.zeros(30, np.float32)},
    name="lines",
)
VALUES = models.mlp({"y": models.regression()}, hidden=(4,))
TOO_MANY = data.arrays(np.zeros((3, 6), np.float32), np.arange(3), name="three")
UNLABELLED = data.arrays(np.zeros((30, 6), np.float32), None, name="nameless")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: experiment(prototypical(ways=4)), "4 classes need a head of as many"),
        (
            lambda: experiment(prototypical(shots=8, queries=5)),
            "12 examples of its class .* an episode needs 13: 8 shots and 5 queries",
        ),
        (
            lambda: experiment(
                {"a": [stage("a", fewshot.episodic(fewshot.prototypical(), ADAM),
                             episodes(TRAIN.classes(range(2)), "way", **FORM))]}
            ),
            "has 2 classes .* needs 3 ways",
        ),
        (
            lambda: experiment(
                {"a": [stage("a", fewshot.episodic(fewshot.prototypical(), ADAM),
                             episodes(UNLABELLED, "way", **FORM))]}
            ),
            "label column of nameless",
        ),
        (
            lambda: experiment(
                {"a": [stage("a", transfer.full(ADAM))]}
            ),
            "draws episodes, which its method does not read",
        ),
        (
            lambda: experiment(
                {"a": [stage("a", fewshot.episodic(fewshot.prototypical(), ADAM),
                             labelled(TRAIN, "all"))]}
            ),
            "learners read episodes",
        ),
        (
            lambda: experiment(
                {"a": [Stage("a", MODEL, fewshot.episodic(fewshot.prototypical(), ADAM),
                             domains=[episodes(TRAIN, "way", **FORM), unlabelled(TEST, "all")],
                             batch_size=4, num_steps=2)]}
            ),
            "2 domains; one that draws episodes stands alone",
        ),
        (
            lambda: experiment(
                {"a": [stage("a", transfer.full(ADAM), labelled(TRAIN, "all"))]},
                {"own": few_shot(TEST, "way", **FORM)},
            ),
            "no arm ends with a method that reads episodes",
        ),
        (
            lambda: experiment(
                {"a": [stage("a", transfer.full(ADAM), labelled(TRAIN, "all"))]},
                {"own": few_shot(TEST, "way", learner=fewshot.relation(), **FORM)},
            ),
            "has a network of its own",
        ),
        (
            lambda: experiment(
                {"a": [Stage("a", VALUES, fewshot.episodic(fewshot.ridge_head(), ADAM),
                             domains=[episodes(LINES, "y", ways=1, shots=2, queries=2,
                                               groups="line")], batch_size=4, num_steps=2)]},
                {"own": few_shot_regression(LINES, "y", groups="line", column="y", shots=1)},
            ),
            "head 'y' predicts values, but 'line' says which episode",
        ),
        (
            lambda: experiment(evals={"own": few_shot(TOO_MANY, "way", **FORM)}),
            "evaluation 'own': dataset three has 1 examples of its class",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_episode_is_refused_before_any_work(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        jaxtl.run(make(), seeds=1, workdir=tmp_path, progress=False)
    assert not list(tmp_path.rglob("stages"))
