"""Features that agree in all sources, or vary little, against loops of their own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import two_domains
from labelled_domains import KEY, SGD, B
from shapes import SHAPE
from two_domains import Forward, cross_entropy

from jaxtl.losses import mmd
from jaxtl.methods import adapt, generalize
from jaxtl.methods.generalize.cdann import balanced
from jaxtl.paths import flatten


def three(seed=0):
    batch = two_domains.draw(3, labelled=(0, 1, 2), seed=seed)
    present = np.random.default_rng(5).uniform(0.5, 2, batch.present.shape).astype("f")
    present[2, 1] = 0
    return batch.replace(present=present)


def deep(method, batch):
    shape = SHAPE._replace(roles=batch.roles, classes={"task": two_domains.CLASSES})
    params = two_domains.initial(method, shape)
    return params, *two_domains.evaluated(method, params, batch)


def test_pairs_of_domains():
    batch = three()
    params, loss, metrics, _ = deep(generalize.coral(SGD, weight=3.0), batch)
    numbers = two_domains.computed(params, batch)
    features, present = np.float64(numbers.all_features), np.float64(batch.present)
    covariances = []
    for d in range(3):
        rows, weights = features[:, d], present[:, d]
        gaps = rows - np.average(rows, axis=0, weights=weights)
        covariances.append((weights[:, None] * gaps).T @ gaps / (weights.sum() - 1))
    pairs = [(0, 1), (0, 2), (1, 2)]
    distance = np.mean([((covariances[i] - covariances[j]) ** 2).sum() for i, j in pairs])
    distance /= 4 * features.shape[-1] ** 2
    np.testing.assert_allclose(metrics["coral"], distance, rtol=1e-4)
    np.testing.assert_allclose(loss, numbers.task + 3 * distance, rtol=1e-5)

    widths = (0.5, 2.0)
    _, loss, metrics, _ = deep(generalize.mmd(SGD, weight=3.0, bandwidths=widths), batch)
    sides = [(numbers.all_features[:, d], batch.present[:, d]) for d in range(3)]
    closeness = jax.jit(functools.partial(mmd, bandwidths=widths))
    values = [closeness(sides[i][0], sides[j][0], sides[i][1], sides[j][1]) for i, j in pairs]
    np.testing.assert_allclose(metrics["mmd"], np.mean(values), rtol=1e-4)
    np.testing.assert_allclose(loss, numbers.task + 3 * np.mean(values), rtol=1e-5)


def test_mixtures_of_domains():
    batch = three()
    parts = np.asarray(jax.random.randint(jax.random.split(KEY)[0], (1, 3), 0, B))[0]
    params, loss, metrics, _ = deep(generalize.caus_irl_coral(SGD, weight=3.0), batch)
    numbers = two_domains.computed(params, batch)
    features, covariances = np.float64(numbers.all_features), []
    for chosen in (lambda i, d: i < parts[d], lambda i, d: i >= parts[d]):
        places = [(i, d) for i in range(B) for d in range(3) if chosen(i, d)]
        rows = np.stack([features[place] for place in places])
        weights = np.float64([batch.present[place] for place in places])
        gaps = rows - np.average(rows, axis=0, weights=weights)
        covariances.append((weights[:, None] * gaps).T @ gaps / (weights.sum() - 1))
    gap = ((covariances[0] - covariances[1]) ** 2).sum() / (4 * features.shape[-1] ** 2)
    assert 0 < parts.sum() < 3 * B
    np.testing.assert_allclose(metrics["mixture_distance"], gap, rtol=1e-4)
    np.testing.assert_allclose(loss, numbers.task + 3 * gap, rtol=1e-5)


@pytest.mark.slow
def test_two_sources_are_aligned_like_a_source_and_a_target():
    batch = two_domains.draw(2, labelled=(0, 1))
    sides = batch.replace(roles=("source", "target"))
    for here, there in (
        (generalize.coral(SGD), adapt.deep_coral_features(SGD)),
        (generalize.mmd(SGD), adapt.dan(SGD)),
    ):
        params = two_domains.start()
        loss, _, gradient = two_domains.evaluated(here, params, batch)
        expected, _, slopes = two_domains.evaluated(there, params, sides)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
        two_domains.assert_close(gradient, slopes)


@pytest.mark.parametrize(
    "build", [pytest.param(generalize.dann, marks=pytest.mark.slow), generalize.cdann]
)
def test_the_adversary_of_sources(build):
    batch = three()
    method = build(SGD, reversal=2.0, weight=0.5)
    params, loss, metrics, gradient = deep(method, batch)
    labels, weights = batch.labels["task"], np.float64(batch.present)
    layers = sorted(params["discriminator"])  # hidden ones first
    layers = [name for name in layers if name != "output"] + ["output"]
    if build is generalize.cdann:
        scale = np.zeros((B, 3))
        cells = {(d, c) for d in range(3) for c in labels[:, d][weights[:, d] > 0]}
        for d, c in cells:
            rows = (labels[:, d] == c) * weights[:, d]
            scale[:, d] += rows / rows.sum() / len(cells)
    else:
        scale = weights / weights.size

    def confusion(params):
        features = Forward(params, batch).all_features
        if build is generalize.cdann:
            one_hot = jax.nn.one_hot(labels, two_domains.CLASSES)
            features = (features[..., :, None] * one_hot[..., None, :]).reshape(B, 3, -1)
        logits = two_domains.dense(
            params["discriminator"], features.reshape(B * 3, -1), tuple(layers)
        )
        log_p = jax.nn.log_softmax(logits).reshape(B, 3, 3)
        return -jnp.sum(scale * jnp.diagonal(log_p, axis1=1, axis2=2))

    value, slopes = two_domains.gradient_of(confusion, params)
    task, task_slopes = two_domains.gradient_of(
        lambda p: cross_entropy(Forward(p, batch).all_logits, batch), params
    )
    np.testing.assert_allclose(metrics["domain_loss"], value, rtol=1e-4)
    np.testing.assert_allclose(loss, task + 0.5 * value, rtol=1e-5)
    for path, leaf in flatten(gradient).items():
        factor = 0.5 if path.startswith("discriminator") else -1.0
        expected = flatten(task_slopes)[path] + factor * flatten(slopes)[path]
        np.testing.assert_allclose(leaf, expected, rtol=1e-3, atol=1e-5, err_msg=path)


def test_classes_of_domains_weigh_the_same_and_the_mean_is_1():
    weights = jnp.array([[1.0, 2.0], [3.0, 0.0], [1.0, 2.0]])
    classes = jax.nn.one_hot(jnp.array([[0, 1], [0, 1], [1, -1]]), 2)
    scale = balanced(classes, weights)
    expected = np.array([[0.25, 1], [0.75, 0], [1, 0]]) * 2  # three cells of six examples
    np.testing.assert_allclose(scale, expected, rtol=1e-6)
    assert not balanced(classes, 0 * weights).any()


def test_information_bottlenecks():
    batch = three()
    params, loss, metrics, _ = deep(generalize.ib_erm(SGD, weight=4.0), batch)
    numbers = two_domains.computed(params, batch)
    spread = 0.0
    for d in range(3):
        rows, weights = np.float64(numbers.all_features[:, d]), np.float64(batch.present[:, d])
        mean = np.average(rows, axis=0, weights=weights)
        spread += np.average((rows - mean) ** 2, axis=0, weights=weights).mean() / 3
    np.testing.assert_allclose(metrics["feature_variance"], spread, rtol=1e-4)
    np.testing.assert_allclose(loss, numbers.task + 4 * spread, rtol=1e-5)
    _, both, metrics, _ = deep(generalize.ib_irm(SGD, weight=4.0, irm_weight=3.0), batch)
    _, irm, more, _ = deep(generalize.irm(SGD, weight=3.0, rescale=False), batch)
    np.testing.assert_allclose(both, irm + 4 * spread, rtol=1e-5)
    np.testing.assert_allclose(metrics["penalty"], more["penalty"], rtol=1e-5)
