"""Every alignment as a stage: it undoes a planted shift, reads no target label, and deploys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shapes import SHAPE
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from jaxtl import models
from jaxtl.methods import adapt
from jaxtl.methods.adapt.shallow.aligned import Aligned
from jaxtl.methods.transfer.linear_fit import stratified_folds
from jaxtl.plan import Columns, State

MODEL = models.linear({"class": models.classes(3)})
SHIFTED = {
    "coral_map": adapt.coral_map(regularization=1e-3),
    "coral_map_nearest": adapt.coral_map(adapt.nearest_neighbour(), regularization=1e-3),
    "subspace_alignment": adapt.subspace_alignment(dim=2),
    "gfk": adapt.gfk(dim=2),
    "tca": adapt.tca(dim=2, regularization=1e-3),
    "jda": adapt.jda(dim=2, regularization=1e-3, rounds=3),
    "jda_linear": adapt.jda(adapt.linear_ridge(), dim=2, regularization=1e-3, rounds=3),
    "jgsa": adapt.jgsa(dim=2, rounds=3),
    "meda": adapt.meda(dim=2, rounds=3),
    "ot_map": adapt.ot_map(),
    "ot_map_without_classes": adapt.ot_map(adapt.linear_logistic(), class_weight=0.0),
}
WEIGHTED = {"kmm": adapt.kmm(), "kliep": adapt.kliep()}
PLAIN = {"unaligned": adapt.unaligned(), "joint_pca": adapt.joint_pca(dim=2)}


def planted(n=90, seed=0):
    """Three classes in six dimensions; the target is moved far away."""
    rng = np.random.default_rng(seed)
    centres = np.array([[4.0, 0, 0, 0, 0, 0], [-2, 3.4, 0, 0, 0, 0], [-2, -3.4, 0, 0, 0, 0]])
    labels = np.arange(n) % 3
    source, target = (centres[labels] + rng.normal(size=(n, 6)) * 0.7 for _ in range(2))
    return source, labels, target * 1.2 + np.array([6.0, 3, 40, 0, 0, 0])


def columns(x, labels, weight, role=None):
    return Columns(
        np.float32(x),
        {"class": labels},
        {"class": np.full(len(x), weight, np.float32)},
        np.ones(len(x)),
        role or ("source" if weight else "target"),
    )


def domains_of(source, labels, target, hidden=-1):
    return [columns(source, labels, 1), columns(target, np.full(len(target), hidden), 0)]


def solved(method, domains, model=MODEL):
    params, statistics = jax.device_get(model.init(jax.random.key(0), domains[0].inputs[:1]))
    state = State(statistics)
    if method.state is not None:
        state = state._replace(method=jax.device_get(method.state(model, params, state, SHAPE)))
    return method.prepare(model, params, state, domains), (params, state)


def predict(method, params, state, inputs):
    inputs = jnp.asarray(inputs, jnp.float32)
    if method.predict is None:
        return MODEL.apply(params, state.statistics, inputs)[0]["logits"]["class"]
    return method.predict(MODEL, params, state, inputs)["logits"]["class"]


def accuracy(method, source, labels, target, truth):
    (params, state), _ = solved(method, domains_of(source, labels, target))
    return (np.asarray(predict(method, params, state, target)).argmax(1) == truth).mean()


@pytest.mark.parametrize("name", SHIFTED)
def test_a_planted_shift_is_undone(name):
    source, labels, target = planted()
    plain = accuracy(PLAIN["unaligned"], source, labels, target, labels)
    found = accuracy(SHIFTED[name], source, labels, target, labels)
    assert plain < 0.7 < 0.9 < found


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_find_the_part_of_the_source_that_is_like_the_target(name):
    rng = np.random.default_rng(0)
    x, target = rng.uniform(-3, 3, (300, 2)), rng.uniform(1.5, 3, (150, 2))

    def curved(x):  # no line fits it everywhere
        return (x[:, 1] > x[:, 0] ** 2 / 2 - 0.5).astype(np.int64)

    scores = [
        accuracy(method, x, curved(x), target, curved(target))
        for method in (adapt.unaligned(adapt.linear_ridge()), WEIGHTED[name])
    ]
    assert scores[1] > scores[0] + 0.05


@pytest.mark.parametrize("name", [*SHIFTED, *WEIGHTED, *PLAIN])
def test_target_labels_change_no_bit(name):
    method = {**SHIFTED, **WEIGHTED, **PLAIN}[name]
    source, labels, target = planted()
    results = [solved(method, domains_of(source, labels, target, hidden))[0] for hidden in (-1, 2)]
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", [*SHIFTED, *WEIGHTED, *PLAIN])
def test_shapes_stay_and_only_what_is_solved_changes(name):
    method = {**SHIFTED, **WEIGHTED, **PLAIN}[name]
    source, labels, target = planted()
    after, before = solved(method, domains_of(source, labels, target))
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (after, before)]
    assert shapes[0] == shapes[1]
    if method.solves:
        assert not method.fresh_frozen and method.predict is None
        assert (after[0]["heads"]["class"]["kernel"] != before[0]["heads"]["class"]["kernel"]).any()
    else:
        assert jax.tree.all(jax.tree.map(np.array_equal, after[0], before[0]))


@pytest.mark.parametrize("cosine", [False, True])
def test_nearest_neighbour_is_scikit_learn_s(cosine):
    source, labels, target = planted()
    method = adapt.unaligned(adapt.nearest_neighbour(cosine=cosine, capacity=100))
    (params, state), _ = solved(method, domains_of(source, labels, target))
    logits = np.asarray(predict(method, params, state, target))
    metric = "cosine" if cosine else "euclidean"
    other = KNeighborsClassifier(1, metric=metric).fit(source, labels)
    np.testing.assert_array_equal(logits.argmax(1), other.predict(target))
    if not cosine:
        nearest = [((target[:, None] - source[labels == c]) ** 2).sum(-1).min(1) for c in range(3)]
        np.testing.assert_allclose(logits, -np.stack(nearest, 1), rtol=1e-3, atol=1e-3)


def test_a_class_without_examples_is_never_chosen():
    source, labels, target = planted()
    method = PLAIN["unaligned"]
    (params, state), _ = solved(method, domains_of(source, labels % 2, target))
    logits = np.asarray(predict(method, params, state, target))
    assert np.isfinite(logits).all() and (logits.argmax(1) < 2).all()


def test_support_vector_machines_are_scikit_learn_s_with_the_penalty_of_least_error():
    source, labels, target = planted()
    source = source + np.random.default_rng(1).normal(size=source.shape) * 3
    for classes in (3, 2):
        method = adapt.unaligned(adapt.linear_svm((2.0,)))
        (params, _), _ = solved(method, domains_of(source, labels % classes, target))
        other = LinearSVC(C=0.5, dual=False, max_iter=10_000).fit(source, labels % classes)
        logits = target @ params["heads"]["class"]["kernel"] + params["heads"]["class"]["bias"]
        np.testing.assert_array_equal(logits.argmax(1), other.predict(target))
    penalties, errors = (10.0, 1e4), []
    folds = stratified_folds(labels, 3)
    for penalty in penalties:
        wrong = 0
        for fold in range(3):
            held = folds == fold
            one = LinearSVC(C=1 / penalty, dual=False).fit(source[~held], labels[~held])
            wrong += (one.predict(source[held]) != labels[held]).sum()
        errors.append(wrong)
    assert errors[0] != errors[1]
    best = penalties[int(np.argmin(errors))]
    kernels = [
        solved(adapt.unaligned(adapt.linear_svm(given)), domains_of(source, labels, target))[0][0]
        for given in (penalties, (best,))
    ]
    np.testing.assert_array_equal(*(params["heads"]["class"]["kernel"] for params in kernels))


def test_the_head_is_the_classifier_after_the_affine_map():
    source, labels, target = planted()
    rng = np.random.default_rng(0)
    projection, offset = rng.normal(size=(6, 2)), np.array([1.0, -2])

    def align(source, labels, target, classify):
        return Aligned(source[:, :2], projection, offset, np.where(labels == 0, 3.0, 1.0))

    method = adapt.alignment(align, adapt.linear_ridge((2.0,)), width=2)
    (params, state), _ = solved(method, domains_of(source, labels, target))
    x = np.float64(np.float32(source))[:, :2]
    weights = np.where(labels == 0, 3.0, 1.0)
    other = Ridge(alpha=2.0).fit(x, np.eye(3)[labels], weights)
    expected = other.predict(target @ projection + offset)
    np.testing.assert_allclose(predict(method, params, state, target), expected, atol=1e-4)


def test_several_sources_and_targets_are_one_sample_each():
    source, labels, target = planted()
    parts = [
        columns(source[:50], labels[:50], 1),
        columns(source[50:], labels[50:], 1),
        columns(target[:20], np.full(20, -1), 0),
        columns(target[20:], np.full(70, -1), 0),
    ]
    split, _ = solved(adapt.coral_map(), parts)
    whole, _ = solved(adapt.coral_map(), domains_of(source, labels, target))
    for one, other in zip(*map(jax.tree.leaves, (split, whole)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_does_not_fit_is_an_error():
    source, labels, target = planted()
    domains = domains_of(source, labels, target)
    few = columns(source, labels, 1, "target")
    blind = columns(target, 0 * labels - 1, 0, "source")
    cases = [
        (adapt.coral_map(), domains[:1], "1 of 1 domains are sources"),
        (adapt.coral_map(), [blind, few], "no source example has a label"),
        (adapt.coral_map(), [domains[0], few], "a target has labels"),
        (adapt.meda(dim=2), [domains[0], few], "a target has labels"),
        (adapt.coral_map(), [domains[0], columns(target * np.nan, labels, 0)], "not finite"),
        (adapt.tca(dim=30), domains, "dim must be between 1 and 6; got 30"),
        (adapt.unaligned(adapt.nearest_neighbour(capacity=50)), domains, "90 examples .* is 50"),
        (adapt.meda(dim=2, capacity=100), domains, "180 examples are to be kept"),
    ]
    for method, given, message in cases:
        with pytest.raises(ValueError, match=message):
            solved(method, given)
    numbers = models.linear({"class": models.regression()})
    with pytest.raises(ValueError, match="one head of classes"):
        solved(adapt.coral_map(), domains, numbers)
    for build in (adapt.jda, adapt.jgsa, adapt.meda):
        with pytest.raises(ValueError, match="rounds must be at least 1; got 0"):
            build(rounds=0)
