"""What holds of every learner: padding, order and numbering change nothing, tasks are many."""

import dataclasses
import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.spatial.distance import cdist
from scipy.special import log_softmax
from small_tasks import (
    KEY,
    MODEL,
    PLAIN,
    WAYS,
    answers,
    batch_of,
    episode,
    features,
    initialiser,
    parameters,
)

from jaxtl.methods import fewshot
from jaxtl.models import Block, classes, conv_net, episode_logits, from_blocks
from jaxtl.plan import Learner, State

SGD = optax.sgd(0.2)
LEARNERS = {
    "prototypical": fewshot.prototypical(),
    "cosine": fewshot.prototypical(fewshot.cosine, scale=10.0),
    "matching": fewshot.matching(),
    "simple_shot": fewshot.simple_shot(),
    "relation": fewshot.relation(),
    "logistic_head": fewshot.logistic_head(),
    "baseline_plus_plus": fewshot.baseline_plus_plus(SGD, num_steps=3),
    "ridge_head": fewshot.ridge_head(),
    "in_context": fewshot.in_context(),
    "baseline": fewshot.baseline(SGD, num_steps=3),
    "fine_tuning": fewshot.fine_tuning(SGD, num_steps=3),
    "maml": fewshot.maml(SGD, num_steps=2),
    "anil": fewshot.anil(SGD, num_steps=2),
    "meta_sgd": fewshot.meta_sgd(0.2, num_steps=2),
    "implicit_maml": fewshot.implicit_maml(SGD, penalty=2.0, num_steps=3),
}
COMPARE = list(LEARNERS)[:7]
NARROW = {"rtol": 2e-4, "atol": 2e-5}


def narrow(tree):
    return jax.tree.map(lambda x: np.float32(x) if np.asarray(x).dtype == float else x, tree)


def given(name):
    """Parameters in which no class is told from another by the head that the loop starts from."""
    params = narrow(parameters(MODEL, LEARNERS[name]))
    for room in params, params.get("rates", {"heads": {}}):
        if room["heads"]:
            even = jax.tree.map(lambda x: x - x + x[..., :1], room["heads"]["task"])
            room["heads"] = {"task": even}
    return params


def padded(examples, content, label):
    rows = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf[:2]]), examples)
    rows.inputs[-2:], rows.labels[-2:], rows.weights[-2:] = content, label, 0
    return rows


QUICK = ("prototypical", "ridge_head", "meta_sgd")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in LEARNERS]
)
def test_padding_order_numbering_and_many_tasks(name):
    learner, params, (support, queries) = LEARNERS[name], given(name), narrow(episode())
    ways = np.array([2, 0, 1], np.int32)  # class k is called ways[k]
    order = np.random.default_rng(0).permutation(len(support.labels) + 2)
    base, asked = padded(support, 1e3, 1), padded(queries, -9.0, 0)
    tasks = {
        "base": (base, asked),
        "other padding": (padded(support, -7.0, 2), padded(queries, 1e4, 1)),
        "shuffled": (jax.tree.map(lambda leaf: leaf[order], base), asked),
        "renamed": (base._replace(labels=ways[base.labels]), asked),
        "no class 1": (base._replace(weights=np.where(base.labels == 1, 0, base.weights)), asked),
    }
    batch = batch_of(*tasks.values())

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def slope(params):
        logits, _ = episode_logits(learner, MODEL, params, State({}), batch, rng=KEY, train=False)
        loss = MODEL.heads["task"].loss(
            logits, 2 * (batch.labels["task"][:, -len(asked.labels) :] // 2)
        )
        return loss.sum(), logits

    gradient, stacked = slope(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    logits = dict(zip(tasks, np.asarray(stacked[:, :-2]), strict=True))
    alone = answers(learner, params, support, queries)
    assert alone.shape == (len(queries.labels), WAYS) and np.ptp(alone, 1).min() > 1e-4
    for same in ("base", "other padding", "shuffled"):
        np.testing.assert_allclose(logits[same], alone, **NARROW)
    if name != "in_context":  # which learns it only from many episodes
        np.testing.assert_allclose(logits["renamed"][:, ways], alone, **NARROW)
    probabilities = jax.nn.softmax(logits["no class 1"])
    assert (probabilities[:, 1] == 0).all() and probabilities[:, 0].min() > 0


@pytest.mark.parametrize("name", LEARNERS)
def test_numbers_are_answered_or_refused(name):
    learner, task = LEARNERS[name], episode(numbers=1)
    params = jax.eval_shape(initialiser(PLAIN, learner))

    def run():
        return jax.eval_shape(lambda p: answers(learner, p, *task, model=PLAIN), params)

    if name in COMPARE:
        with pytest.raises(ValueError, match=f"{name.replace('cosine', 'prototypical')} compares"):
            run()
    else:
        assert run().shape == (12, 1)


def test_what_a_batch_of_episodes_must_be():
    learner, params = LEARNERS["maml"], given("maml")
    batch = batch_of(episode())

    def run(batch, model=MODEL, ways=None):
        return episode_logits(
            learner, model, params, State({}), batch, ways=ways, rng=KEY, train=True
        )

    with pytest.raises(ValueError, match=r"learners read episodes.*are source, source"):
        run(batch.replace(roles=("source",) * len(batch.roles)))
    with pytest.raises(ValueError, match=r"episodes of 5 classes need a head of as many; .* has 3"):
        run(batch, ways=5)
    with pytest.raises(ValueError, match="have one head; these name other, task"):
        run(batch.replace(labels={**batch.labels, "other": batch.labels["task"]}))
    with pytest.raises(ValueError, match=r"unknown head 'tsk'\. Did you mean 'task'"):
        run(batch.replace(labels={"tsk": batch.labels["task"]}))
    with pytest.raises(ValueError, match=r"pattern 'heads/other/\.\*' matched no parameter"):
        answers(fewshot.maml(SGD, patterns=("heads/other/.*",)), params, *episode())


def test_training_is_the_mean_loss_of_the_queries():
    learner = fewshot.prototypical()
    method = fewshot.episodic(learner, optax.adam(1e-3), patterns=("backbone/.*",))
    assert method.learner is learner and method.optimizers["all"][0] == ("backbone/.*",)
    episodes, params = [narrow(episode(seed)) for seed in range(2)], given("prototypical")
    batch = batch_of(*episodes)
    batch = batch.replace(present=batch.present.at[0, -1].set(0))  # a query that is padding
    loss, (_, metrics) = jax.jit(
        lambda p: method.updates[0].loss(MODEL, p, State({}), batch, KEY, 0)
    )(params)
    losses, hits = [], []
    for (support, queries), count in zip(episodes, (-1, None), strict=True):
        x, q = (features(params, rows.inputs) for rows in (support, queries))
        means = np.stack([x[support.labels == k].mean(0) for k in range(WAYS)])
        logits = -cdist(q, means, "sqeuclidean")
        rows = -log_softmax(logits, 1)[np.arange(len(q)), queries.labels][:count]
        losses.append(rows.mean())
        hits.append((logits.argmax(1) == queries.labels)[:count].mean())
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(metrics["query_accuracy"], np.mean(hits), rtol=1e-6)


def test_labels_of_queries_are_hidden():
    def predict(model, params, state, support, queries, *, ways, rng, train):
        assert model.heads.keys() == {"task"}
        return jnp.broadcast_to(queries.labels[:, None], (12, ways)), {}

    model = dataclasses.replace(MODEL, heads={"other": classes(9), "task": classes(WAYS)})
    logits, _ = episode_logits(
        Learner("spy", predict), model, {}, State({}), batch_of(episode()), rng=KEY, train=True
    )
    assert (logits == -1).all()


def test_learners_with_networks_of_their_own_train_them():
    method = fewshot.episodic(fewshot.meta_sgd(), SGD, patterns=("heads/.*",))
    assert method.optimizers["all"][0] == ("heads/.*", "rates/.*")
    assert method.modules.keys() == {"rates"}


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(not train, momentum=0.9)(nn.Dense(5)(x))


@pytest.mark.parametrize("name", ["prototypical", "anil"])
def test_batch_statistics(name):
    model = from_blocks([Block("first", Normalised(), nn.tanh)], {"task": classes(WAYS)})
    params, statistics = model.init(KEY, jnp.zeros((1, 4)))
    episodes = [narrow(episode(seed)) for seed in range(2)]
    batch, state = batch_of(*episodes), State(statistics)
    stored = {"prototypical": fewshot.prototypical(), "anil": fewshot.anil(SGD)}[name]
    live = {
        "prototypical": fewshot.prototypical(transductive=True),
        "anil": fewshot.anil(SGD, transductive=True),
    }[name]
    assert live.transductive and not stored.transductive

    @jax.jit
    def run(params):
        return [
            episode_logits(learner, model, params, state, batch, rng=KEY, train=train)
            for learner, train in ((stored, False), (live, False), (stored, True))
        ]

    (by_stored, same), (by_live, _), (by_training, moved) = run(params)
    jax.tree.map(np.testing.assert_array_equal, same, statistics)
    assert abs(by_stored - by_live).max() > 1e-2
    np.testing.assert_array_equal(by_live, by_training)
    kernel = params["backbone"]["first"]["Dense_0"]["kernel"]
    rows = batch.inputs if name == "prototypical" else batch.inputs[:, 6:]
    expected = 0.1 * (rows @ kernel).mean((0, 1))  # the mean over tasks
    mean = moved["backbone"]["first"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-6)


def test_shared_layers_see_one_batch():
    model = conv_net({"task": classes(WAYS)})
    params, _ = jax.jit(model.init)(KEY, jnp.zeros((1, 8, 8, 1)))
    method = fewshot.episodic(fewshot.prototypical(), SGD)
    support, queries = narrow(episode())
    images = [
        rows._replace(inputs=np.ones((len(rows.labels), 8, 8, 1), "f"))
        for rows in (support, queries)
    ]
    batch = batch_of(images, images, images)

    @jax.jit
    @jax.grad
    def slope(params):
        return method.updates[0].loss(model, params, State({}), batch, KEY, 0)[0]

    text = slope.lower(params).compile().as_text()
    groups = re.findall(r"feature_group_count=(\d+)", text) + re.findall(
        r"batch_group_count=(\d+)", text
    )
    assert set(groups) <= {"1"}
    rows = 3 * (len(support.labels) + len(queries.labels))
    assert re.search(rf"f32\[{rows * 64},9\]|f32\[9,{rows * 64}\]", text)  # patches of all tasks
