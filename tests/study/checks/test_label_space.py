"""What reads one head is matched by the names of classes."""

import dataclasses

import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import experiment, run_tiny

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize, unlabelled
from jaxtl.study.checks.label_space import match_classes

replace = dataclasses.replace
CENTRES = np.random.default_rng(7).normal(size=(4, 5)) * 4
KINDS = ("ant", "bee", "cat", "dog")


def animals(names, given=None, n=48, seed=0):
    """Blobs whose place tells the animal, with the classes numbered in this order."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(names)
    centres = np.stack([CENTRES[KINDS.index(name)] for name in names])
    inputs = (centres[labels] + rng.normal(size=(n, 5)) * 0.3).astype(np.float32)
    return data.arrays(inputs, labels, name="_".join(names), classes=given or names)


def arms(*trainings, size=4, fresh=(), target="animal"):
    model = models.mlp({"animal": classes(size)}, hidden=(8,))
    adam, chain = optax.adam(3e-2), []
    for i, domains in enumerate(trainings):
        again = fresh if i else ()
        chain.append(
            Stage(
                f"s{i}",
                model,
                transfer.full(adam),
                domains=domains,
                batch_size=16,
                num_steps=60,
                fresh=again,
            )
        )
    return {"only": chain}


def plan(test, *trainings, **more):
    evals = {"test": classification(test, "animal")}
    return Experiment(arms(*trainings, **more), "only", evals, primary=maximize("test", "accuracy"))


def space_of(matched, name="test"):
    evaluation = matched.evals[name]
    return evaluation.dataset.class_names(evaluation.column)


def test_a_reordered_evaluation_is_measured_by_name(tmp_path):
    here, there = animals(KINDS), animals(KINDS[::-1], seed=1)
    summary, said = run_tiny(tmp_path, plan=plan(there, [labelled(here, "animal")]))
    assert summary["arms"]["only"]["metrics"]["test/accuracy"]["mean"] > 0.95
    assert "evaluation 'test', dog_cat_bee_ant: classes are matched by name" in said


def test_a_target_that_lacks_a_class_and_sources_of_different_classes():
    domains = [labelled(animals(("bee", "dog")), "animal"), labelled(animals(KINDS[:3]), "animal")]
    tiny = plan(animals(("cat", "dog"), seed=1), domains)
    matched, notes = match_classes(tiny)
    assert any("it lacks bee, ant" in note for note in notes)
    assert space_of(matched) == ("bee", "dog", "ant", "cat")
    evaluation = matched.evals["test"]
    assert set(evaluation.dataset.table().labels[evaluation.column]) == {1, 3}


def test_stages_that_hand_a_head_on_agree():
    tiny = plan(
        animals(KINDS),
        [labelled(animals(KINDS), "animal")],
        [labelled(animals(("dog", "bee")), "animal")],
    )
    (domain,) = match_classes(tiny)[0].arms["only"][1].domains
    table = domain.dataset.table()
    assert table.names(domain.heads["animal"]) == KINDS
    assert set(table.labels[domain.heads["animal"]]) == {1, 3}
    assert set(table.labels["label"]) == {0, 1}  # weights of examples still read it as it was


def test_a_head_that_a_stage_starts_anew_may_have_other_classes():
    source, target = animals(KINDS[:2]), animals(KINDS[2:])
    both = [labelled(source, "animal")], [labelled(target, "animal")]
    with pytest.raises(ValueError, match="its classes cat, dog are not among ant, bee"):
        match_classes(plan(target, *both, size=2))
    matched, notes = match_classes(plan(target, *both, size=2, fresh=("heads/animal/.*",)))
    assert notes == [] and space_of(matched) == KINDS[2:]


@pytest.mark.parametrize(
    "names, said",
    [
        (("ant", "bee", "cat", "dogs"), "closest to 'dogs': 'dog'"),
        (("0", "1", "2", "3"), "are not among ant, bee"),
    ],
)
def test_names_that_cannot_agree(names, said):
    test = animals(KINDS, given=names)
    with pytest.raises(ValueError, match=r"evaluation 'test': dataset .*, head 'animal'") as error:
        match_classes(plan(test, [labelled(animals(KINDS), "animal")]))
    assert said in str(error.value) and "relabel" in str(error.value)


def test_classes_without_names_are_positions_and_that_is_said():
    unnamed = data.arrays(np.zeros((6, 5), np.float32), np.arange(6) % 3, name="plain")
    matched, (note,) = match_classes(plan(unnamed, [labelled(animals(KINDS), "animal")]))
    assert "matched by position" in note and "0 is 'ant'" in note
    assert matched.evals["test"].dataset is unnamed
    matched, (note,) = match_classes(plan(animals(KINDS), [labelled(unnamed, "animal")]))
    assert "matched by position" in note and matched.evals["test"].column == "label"


def test_numbered_folders_agree_with_arrays_in_any_order():
    numbers = tuple(map(str, range(12)))
    inputs = np.eye(12, dtype=np.float32)
    folders = data.arrays(inputs, np.arange(12), classes=sorted(numbers))  # 0, 1, 10, 11, 2, ...
    arrays = data.arrays(inputs, np.arange(12))
    matched, _ = match_classes(plan(folders, [labelled(arrays, "animal")], size=12))
    evaluation = matched.evals["test"]
    labels = evaluation.dataset.table().labels[evaluation.column]
    np.testing.assert_array_equal(labels, [int(name) for name in sorted(numbers)])


NAMES = st.lists(st.sampled_from(["0", "1", "2", "a", "b", "A", "10"]), min_size=1, unique=True)


@given(NAMES, NAMES, st.integers(1, 8))
def test_every_label_keeps_its_name_or_is_refused(first, second, size):
    def named(names):
        inputs, labels = np.zeros((len(names), 5), np.float32), np.arange(len(names))
        return data.arrays(inputs, labels, classes=names)

    if len(first) > size:
        return  # of a head that is too small whoever checks the labels says so
    try:
        matched, _ = match_classes(
            plan(named(second), [labelled(named(first), "animal")], size=size)
        )
    except ValueError as error:
        assert "\n" not in str(error) and len({*first, *second}) > size
        return
    (domain,) = matched.arms["only"][0].domains
    evaluation = matched.evals["test"]
    trained = domain.dataset.table().names(domain.heads["animal"])
    measured = evaluation.dataset.table()
    assert trained == measured.names(evaluation.column)
    for dataset, column, names in (
        (domain.dataset, domain.heads["animal"], first),
        (evaluation.dataset, evaluation.column, second),
    ):
        assert [trained[i] for i in dataset.table().labels[column]] == names


def test_unlabelled_domains_and_equal_classes_are_left_as_they_are():
    tiny = plan(
        animals(KINDS),
        [labelled(animals(KINDS), "animal"), unlabelled(animals(KINDS[:1]), "animal")],
    )
    matched, notes = match_classes(tiny)
    assert notes == []
    assert matched.evals["test"] is tiny.evals["test"]
    assert matched.arms["only"][0] is tiny.arms["only"][0]
    assert match_classes(experiment())[1] == []


def test_draws_do_not_depend_on_the_order_of_classes():
    there = animals(KINDS[::-1], seed=1).few(3)
    matched, _ = match_classes(plan(there, [labelled(animals(KINDS), "animal")]))
    for seed in range(3):
        np.testing.assert_array_equal(matched.evals["test"].dataset.rows(seed), there.rows(seed))


@pytest.mark.slow
def test_the_source_of_another_run_numbers_its_classes_alike(tmp_path):
    names = ("one", "two", "three")

    def named(order):
        tiny = experiment()
        pretrain, adapt = tiny.arms["full"]
        (domain,) = pretrain.domains
        table = domain.dataset.table()
        renamed = data.arrays(table.inputs, table.labels["label"], name="source", classes=order)
        pretrain = replace(pretrain, domains=[labelled(renamed, "source")])
        target_only = {"target": tiny.evals["target"]}
        return replace(tiny, arms={"full": [pretrain, adapt]}, baseline="full", evals=target_only)

    run_tiny(tmp_path / "one", seeds=(0,), plan=named(names))
    with pytest.raises(ValueError, match="numbers the classes of head 'source' as one, two, three"):
        run_tiny(tmp_path / "two", seeds=(0,), plan=named(names[::-1]), source_run=tmp_path / "one")
