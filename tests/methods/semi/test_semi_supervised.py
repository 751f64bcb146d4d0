"""Semi-supervised losses against NumPy in float64, and what they remember against Python loops."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtl.methods import adapt, semi
from jaxtl.methods.semi.flex_match import learning_status, remember
from jaxtl.methods.semi.uda import not_yet_learned
from jaxtl.models import Block, classes, from_blocks
from jaxtl.paths import flatten
from jaxtl.plan import Columns, StageShape, State
from jaxtl.plan.batch import make_batch

B, C, ROWS = 6, 3, 9
SGD, KEY = optax.sgd(0.1), jax.random.key(3)
SHAPE = StageShape(("source", "target"), (12, ROWS), {"c": C}, B)
BUILDERS = (
    semi.debias_match,
    semi.dst,
    semi.flex_match,
    semi.pi_model,
    semi.self_tuning,
    semi.uda,
)
TWO_LOOKS = (semi.pi_model, semi.self_tuning)


MODEL = from_blocks([Block("first", nn.Dense(5), nn.tanh)], {"c": classes(C)})


def start(method=None, seed=0):
    """Parameters off zero, those of the method's networks among them."""
    params, _ = MODEL.init(jax.random.key(seed), jnp.zeros((1, 4)))
    output = {"features": jnp.zeros((1, 5))}
    for name, module in (method.modules if method else {}).items():
        params = {**params, name: module.init(KEY, output, SHAPE)}
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + 0.8 * rng.normal(size=x.shape).astype("f"), params)


def draw(seed=0):
    """A batch of a labelled domain and an unlabelled one, whose rows are drawn at random."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(0, C, B), np.full(B, -1)], 1)
    weights = np.stack([rng.uniform(0.5, 2, B), np.zeros(B)], 1).astype(np.float32)
    inputs = rng.normal(size=(B, 2, 4)).astype(np.float32)
    index = np.stack([rng.integers(0, 12, B), rng.integers(0, ROWS, B)], 1).astype(np.int32)
    roles = ("source", "target")
    return make_batch(inputs, {"c": labels}, {"c": weights}, index=index, roles=roles)


def strong(rng, inputs):
    return -1.5 * inputs + 0.3


def dense(params, rows):
    return rows @ np.float64(params["kernel"]) + np.float64(params["bias"])


def features(params, inputs):
    return np.tanh(dense(params["backbone"]["first"], np.float64(inputs)))


def logits_of(params, inputs):
    return dense(params["heads"]["c"], features(params, inputs))


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def softmax(logits):
    return np.exp(log_softmax(logits))


def cross_entropy(logits, labels):
    return -log_softmax(logits)[np.arange(len(logits)), labels]


def task(params, batch, counted=None):
    losses = cross_entropy(logits_of(params, batch.inputs[:, 0]), batch.labels["c"][:, 0])
    weights = batch.weights["c"][:, 0] * (1 if counted is None else counted)
    return (weights * losses).sum() / B


@functools.lru_cache(1)
def program(loss):
    def run(params, state, batch, step):
        return loss(MODEL, params, state, batch, KEY, step)

    return jax.jit(jax.value_and_grad(run, has_aux=True))


def evaluated(method, params, batch, memory=None, step=0):
    run = program(method.updates[0].loss)
    (value, (state, metrics)), gradient = run(params, State({}, memory), batch, step)
    return value, state.method, metrics, gradient


def assert_slopes(gradient, value_of, params):
    """Each leaf's largest gradient against central differences in float64."""
    for path, leaf in flatten(gradient).items():
        index = np.unravel_index(np.argmax(np.abs(leaf)), leaf.shape)
        ends = []
        for sign in (1, -1):
            moved = jax.tree.map(np.array, jax.tree.map(np.float64, params))
            *rooms, name = path.split("/")
            functools.reduce(dict.__getitem__, rooms, moved)[name][index] += sign * 1e-6
            ends.append(value_of(moved))
        slope = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(leaf[index], slope, rtol=2e-3, atol=2e-5, err_msg=path)


def test_pi_model_compares_two_looks():
    def augment(rng, inputs):
        return inputs + jax.random.normal(rng, inputs.shape)

    method, params, batch = semi.pi_model(SGD, augment=augment, weight=0.7), start(), draw()
    looks = [augment(jax.random.fold_in(KEY, i), batch.inputs[:, 1]) for i in (1, 2)]

    def expected(params):
        first, second = (softmax(logits_of(params, look)) for look in looks)
        return task(params, batch) + 0.7 * np.mean((first - second) ** 2)

    value, _, _, gradient = evaluated(method, params, batch)
    np.testing.assert_allclose(value, expected(params), rtol=1e-5)
    assert_slopes(gradient, expected, params)  # both looks have one


def test_a_weight_that_rises():
    rise = semi.gaussian_rise(10, 2.0)
    np.testing.assert_allclose(rise(0), 2 * np.exp(-5), rtol=1e-5)
    np.testing.assert_allclose(rise(5), 2 * np.exp(-1.25), rtol=1e-5)
    assert rise(10) == rise(99) == 2


def test_uda_sharpens_masks_and_anneals():
    method = semi.uda(
        SGD, strong=strong, threshold=0.6, temperature=0.5, weight=0.7, annealing=lambda s: s / 10
    )
    params, batch = start(), draw()
    weak = logits_of(params, batch.inputs[:, 1])
    sure = softmax(weak).max(1) >= 0.6
    sharp = softmax(weak / 0.5)
    p = softmax(logits_of(params, batch.inputs[:, 0]))[np.arange(B), batch.labels["c"][:, 0]]
    counted = p < 1 / 3 + 0.4 * 2 / 3
    assert 0 < sure.mean() < 1 and 0 < counted.mean() < 1

    def expected(params):
        log_q = log_softmax(logits_of(params, strong(None, np.float64(batch.inputs[:, 1]))))
        divergence = (sharp * (np.log(sharp) - log_q)).sum(1)
        return task(params, batch, counted) + 0.7 * (sure * divergence).mean()

    value, _, metrics, gradient = evaluated(method, params, batch, step=4)
    np.testing.assert_allclose(value, expected(params), rtol=1e-5)
    np.testing.assert_allclose(metrics["sure_share"], sure.mean(), rtol=1e-6)
    assert_slopes(gradient, expected, params)


def test_at_the_end_of_annealing_every_label_counts():
    batch = draw()
    logits = jnp.zeros((B, 2, C))
    kept = not_yet_learned(batch, "c", logits, jnp.float32(1)).weights["c"]
    np.testing.assert_array_equal(kept, batch.weights["c"])
    assert not np.any(not_yet_learned(batch, "c", logits, jnp.float32(0)).weights["c"])


def test_flex_match_against_a_loop():
    """Three steps: what is remembered, the status of each class, thresholds, the loss."""
    method = semi.flex_match(SGD, strong=strong, threshold=0.7, weight=0.5)
    rows = np.ones(7, np.float32)  # two rows of the table are not the seed's
    domains = [Columns(None, {}, {}, rows, "source"), Columns(None, {}, {}, rows, "target")]
    state = State({}, method.state(MODEL, start(), {}, SHAPE))
    memory = method.prepare(MODEL, {}, state, domains)[1].method
    last = {}
    for step in range(3):
        params, batch = start(seed=step), draw(seed=step)
        counts = np.bincount(list(last.values()), minlength=C)[:C]
        beta = counts / max(counts.max(), 7 - counts.sum(), 1)
        thresholds = 0.7 * beta / (2 - beta)
        p = softmax(logits_of(params, batch.inputs[:, 1]))
        labels, loss = p.argmax(1), 0.0
        strong_logits = logits_of(params, strong(None, np.float64(batch.inputs[:, 1])))
        for i in range(B):
            if p[i].max() >= thresholds[labels[i]]:
                loss += cross_entropy(strong_logits[i : i + 1], labels[i : i + 1])[0] / B
        value, memory, metrics, _ = evaluated(method, params, batch, memory)
        np.testing.assert_allclose(value, task(params, batch) + 0.5 * loss, rtol=1e-5)
        np.testing.assert_allclose(metrics["lowest_threshold"], thresholds.min(), atol=1e-6)
        for i in range(B):  # a row that is there twice: the later one counts
            if p[i].max() >= 0.7:
                last[int(batch.index[i, 1])] = int(labels[i])
        expected = [last.get(row, C) for row in range(ROWS)]
        np.testing.assert_array_equal(memory["last_class"]["1"], expected)
    assert len(last) > 3


def test_what_is_learned_and_remembered():
    status = learning_status(jnp.array([0, 0, 1, 3, 3]), jnp.float32(5), 3)
    np.testing.assert_allclose(status, [1, 0.5, 0])
    status = learning_status(jnp.array([0, 3, 3, 3, 3]), jnp.float32(5), 3)
    np.testing.assert_allclose(status, [0.25, 0, 0])  # most have no class yet
    rows, sure = jnp.array([2, 0, 2, 2]), jnp.array([True, False, True, False])
    kept = remember(jnp.full(4, 9), rows, jnp.array([5, 6, 7, 8]), sure)
    np.testing.assert_array_equal(kept, [9, 9, 7, 9])


def test_debias_match_follows_the_mean_prediction():
    method = semi.debias_match(
        SGD, strong=strong, threshold=0.6, strength=0.8, momentum=0.9, weight=0.5
    )
    memory, mean = method.state(MODEL, start(), {}, SHAPE), np.full(C, 1 / C)
    for step in range(3):
        params, batch = start(seed=step), draw(seed=step)
        weak = logits_of(params, batch.inputs[:, 1])
        believed = weak - 0.8 * np.log(mean)
        sure, labels = softmax(believed).max(1) >= 0.6, believed.argmax(1)
        mean = 0.9 * mean + 0.1 * softmax(weak).mean(0)
        harder = logits_of(params, strong(None, np.float64(batch.inputs[:, 1])))
        losses = cross_entropy(harder + 0.8 * np.log(mean), labels)
        expected = task(params, batch) + 0.5 * (sure * losses).mean()
        value, memory, _, _ = evaluated(method, params, batch, memory)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        np.testing.assert_allclose(memory["mean_p"], mean, rtol=1e-5)


def test_dst_teaches_one_head_and_fears_another():
    factors = {"weight": 0.7, "worst_weight": 0.5, "reversal": 0.3, "margin": 2.0}
    method = semi.dst(SGD, strong=strong, threshold=0.6, **factors)
    params, batch = start(method), draw()
    weak = [logits_of(params, batch.inputs[:, d]) for d in range(2)]
    labels = [logits.argmax(1) for logits in weak]
    sure = softmax(weak[1]).max(1) >= 0.6

    def parts(params):
        views = features(params, strong(None, np.float64(batch.inputs[:, 1])))
        pseudo = (
            sure * cross_entropy(dense(params["pseudo_head"]["output"], views), labels[1])
        ).mean()
        worst = [
            log_softmax(dense(params["worst_head"]["output"], features(params, batch.inputs[:, d])))
            for d in range(2)
        ]
        agreed = -worst[0][np.arange(B), labels[0]].mean()
        erred = -np.log(1 - np.exp(worst[1][np.arange(B), labels[1]]) + 1e-6).mean()
        return task(params, batch) + 0.7 * pseudo, 0.5 * (2 * agreed + erred)

    value, _, _, gradient = evaluated(method, params, batch)
    np.testing.assert_allclose(value, sum(parts(params)), rtol=1e-5)
    heads = {"heads", "worst_head"}
    assert_slopes({k: g for k, g in gradient.items() if k in heads},
                  lambda p: sum(parts(p)), params)  # fmt: skip
    backbone = {"backbone": gradient["backbone"]}  # the worst case reaches it with the other sign
    assert_slopes(backbone, lambda p: parts(p)[0] - 0.3 * parts(p)[1], params)


def test_self_tuning_against_a_loop():
    """Three steps: the slow copy, the queues, both contrasts; then slopes."""
    options = {"projection": 3, "queue": 2, "momentum": 0.7, "temperature": 0.5}
    method = semi.self_tuning(SGD, augment=strong, weight=0.6, **options)

    def project(params, inputs):
        rows = dense(params["projector"]["output"], features(params, inputs))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    slow = start(method)
    memory, queues = method.state(MODEL, slow, {}, SHAPE), {c: [] for c in range(C)}
    for step in range(3):
        params, batch = start(method, seed=step + 1), draw(seed=step)
        slow = jax.tree.map(lambda old, new: 0.7 * old + 0.3 * new, slow, params)
        keys = [project(slow, strong(None, np.float64(batch.inputs[:, d]))) for d in range(2)]
        guesses = logits_of(params, batch.inputs[:, 1]).argmax(1)
        classes_of = [batch.labels["c"][:, 0], guesses]
        factors = [batch.weights["c"][:, 0], np.ones(B)]

        def expected(params, queues=queues, keys=keys, classes_of=classes_of, factors=factors,
                     batch=batch):  # fmt: skip
            total = 0.0
            for d in range(2):
                queries = project(params, batch.inputs[:, d])
                for i in range(B):
                    group = [keys[d][i], *queues[classes_of[d][i]]]
                    others = [k for c in range(C) if c != classes_of[d][i] for k in queues[c]]
                    scores = np.exp(np.array([*group, *others]) @ queries[i] / 0.5)
                    near = scores[: len(group)] / scores.sum()
                    total -= factors[d][i] * np.log(near).mean() / B
            return task(params, batch) + 0.6 * total

        value, memory, _, gradient = evaluated(method, params, batch, memory)
        np.testing.assert_allclose(value, expected(params), rtol=1e-5)
        if step == 2:
            assert_slopes(gradient, expected, params)
        queues = {c: list(queue) for c, queue in queues.items()}
        for i, d in itertools.product(range(B), range(2)):  # as the batch's rows follow each other
            queues[classes_of[d][i]] = [*queues[classes_of[d][i]], keys[d][i]][-2:]
    assert all(len(queue) == 2 for queue in queues.values())
    for c, queue in queues.items():  # the places are those of a ring
        ring = np.asarray(memory["keys"][c])
        np.testing.assert_allclose(
            sorted(ring.tolist()), sorted(np.array(queue).tolist()), rtol=1e-4
        )


@pytest.mark.parametrize("build", BUILDERS)
def test_a_stage_without_targets_or_with_two_heads_is_refused(build):
    method = build(SGD, augment=strong) if build in TWO_LOOKS else build(SGD, strong=strong)
    batch, params = draw(), start(method)
    memory = method.state and method.state(MODEL, params, {}, SHAPE)
    loss = functools.partial(method.updates[0].loss, MODEL, params, State({}, memory))
    with pytest.raises(ValueError, match="at least one source and one target"):
        loss(batch.replace(roles=("source", "source")), KEY, 0)
    with pytest.raises(ValueError, match="one head"):
        loss(batch.replace(labels={**batch.labels, "d": batch.labels["c"]}), KEY, 0)


def test_methods_of_adaptation_are_those_of_the_other_room():
    assert semi.fix_match is adapt.fix_match and semi.mean_teacher is adapt.mean_teacher
