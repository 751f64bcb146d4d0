"""Models whose heads read features of their own, against the same sums written out in NumPy."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxtl import models, paths
from jaxtl.models import adapters, classes

HEADS = {"a": classes(3), "b": classes(2)}
WIDTHS = (6, 5, 4)
INPUTS = np.random.default_rng(0).normal(size=(7, 8)).astype(np.float32)
LORA = functools.partial(adapters.lora, targets=[r"backbone/dense_[12]/kernel"], rank=2)
SHARING = {
    "mmoe": lambda model: models.mmoe(model, "dense_1", experts=3),
    "cgc": lambda model: models.cgc(model, "dense_1", shared=2, own=1),
    "ple": lambda model: models.ple(model, "dense_1", shared=1, own=2),
    "cross_stitch": lambda model: models.cross_stitch(model, "dense_1"),
    "task_attention": lambda model: models.task_attention(model, "dense_0"),
    "task_embedding": lambda model: models.task_embedding(model, "dense_0", size=3),
    "per_task": lambda model: models.per_task(model, LORA, "lora"),
}
PLAIN = 8 * 6 + 6 + 6 * 5 + 5 + 5 * 4 + 4 + 4 * (3 + 2) + 3 + 2
LAST = 6 * 5 + 5 + 5 * 4 + 4  # an expert of the last two layers
COUNTS = {  # of all parameters
    "mmoe": PLAIN + 2 * LAST + 2 * 6 * 3,
    "cgc": PLAIN + 3 * LAST + 2 * 6 * 3,
    "ple": PLAIN + 4 * LAST + 2 * 6 * 3 + 6 * 5 + 2 * 5 * 3,
    "cross_stitch": PLAIN + LAST + 4 * (5 + 4),
    "task_attention": PLAIN
    + 2 * (6 * 6 + 6 + 6 * 6 + 6)
    + 2 * (11 * 5 + 5 + 5 * 5 + 5)
    + 2 * (9 * 4 + 4 + 4 * 4 + 4),
    "task_embedding": PLAIN + 2 * 3 + 2 * 3 * 6,
    "per_task": PLAIN + 2 * 2 * (6 + 5 + 5 + 4),
}


def some(*names):
    """All of them, of which others than these are slow: each is compiled."""
    return [pytest.param(n, marks=() if n in names else pytest.mark.slow) for n in SHARING]


def plain():
    return models.mlp(HEADS, WIDTHS)


@functools.cache
def built(name):
    """(model, {path: leaf}, each off its start): a start of zeros says nothing of what it does."""
    model = SHARING[name](plain())
    params, _ = model.init(jax.random.key(0), INPUTS)
    rng = np.random.default_rng(1)
    moved = {
        path: np.float32(leaf + 0.3 * rng.normal(size=leaf.shape))
        for path, leaf in paths.flatten(params).items()
    }
    return model, moved


def dense(leaves, path, x):
    return x @ np.float64(leaves[f"{path}/kernel"]) + np.float64(leaves[f"{path}/bias"])


def relu(leaves, path, x):
    return np.maximum(dense(leaves, path, x), 0)


def layers(leaves, path, x, numbers=(1, 2)):
    for number in numbers:
        x = relu(leaves, path.format(f"dense_{number}"), x)
    return x


def mixture(leaves, gate, x, experts):
    logits = x @ np.float64(leaves[f"{gate}/kernel"])
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(shares.sum(1), 1)
    return sum(shares[:, [e]] * experts[e] for e in range(len(experts)))


def mmoe(p, x):
    x = relu(p, "backbone/dense_0", x)
    experts = [layers(p, f"backbone/experts/expert_{e}/{{}}", x) for e in range(3)]
    return {t: mixture(p, f"backbone/experts/gate_for_{t}", x, experts) for t in HEADS}


def cgc(p, x):
    x = relu(p, "backbone/dense_0", x)
    shared = [layers(p, f"backbone/experts/expert_{e}/{{}}", x) for e in range(2)]
    return {
        t: mixture(
            p,
            f"backbone/experts/gate_for_{t}",
            x,
            [layers(p, f"backbone/experts/expert_0_for_{t}/{{}}", x), *shared],
        )
        for t in HEADS
    }


def ple(p, x):
    common = relu(p, "backbone/dense_0", x)
    value = dict.fromkeys(HEADS, common)
    for name in ("dense_1", "dense_2"):
        level = f"backbone/{name}"
        shared = [relu(p, f"{level}/expert_0/{name}", common)]
        own = {
            t: [relu(p, f"{level}/expert_{e}_for_{t}/{name}", value[t]) for e in range(2)]
            for t in HEADS
        }
        value = {
            t: mixture(p, f"{level}/gate_for_{t}", value[t], [*own[t], *shared]) for t in HEADS
        }
        if name == "dense_1":
            common = mixture(p, f"{level}/gate_shared", common, [*own["a"], *own["b"], *shared])
    return value


def cross_stitch(p, x):
    value = dict.fromkeys(HEADS, relu(p, "backbone/dense_0", x))
    for name in ("dense_1", "dense_2"):
        each = [relu(p, f"backbone/{name}/network_for_{t}", value[t]) for t in HEADS]
        units = p[f"backbone/{name}/units"]
        value = {t: sum(units[i, s] * each[s] for s in (0, 1)) for i, t in enumerate(HEADS)}
    return value


def task_attention(p, x):
    value = {}
    for name in ("dense_0", "dense_1", "dense_2"):
        x, place = relu(p, f"backbone/{name}", x), f"backbone/{name}_attention"
        for t in HEADS:
            read = np.concatenate([x, value[t]], 1) if t in value else x
            mask = dense(p, f"{place}/mask_for_{t}", relu(p, f"{place}/hidden_for_{t}", read))
            value[t] = x / (1 + np.exp(-mask))
    return value


def task_embedding(p, x):
    x, place = relu(p, "backbone/dense_0", x), "backbone/dense_0_tasks"
    value = {}
    for t in HEADS:
        z = p[f"{place}/embedding_for_{t}"]
        scaled = x * (1 + z @ p[f"{place}/scale/kernel"]) + z @ p[f"{place}/shift/kernel"]
        value[t] = layers(p, "backbone/{}", scaled)
    return value


def per_task(p, x):
    x = relu(p, "backbone/dense_0", x)
    value = {}
    for t in HEADS:
        own = dict(p)
        for name in ("dense_1", "dense_2"):
            down, up = (p[f"lora_for_{t}/backbone/{name}/{leaf}"] for leaf in "ab")
            own[f"backbone/{name}/kernel"] = p[f"backbone/{name}/kernel"] + 8 / 2 * down @ up
        value[t] = layers(own, "backbone/{}", x)
    return value


@pytest.mark.parametrize("name", SHARING)
def test_outputs_are_those_of_numpy(name):
    model, leaves = built(name)
    output, _ = model.apply(paths.nest(leaves), {}, INPUTS)
    features = globals()[name](leaves, np.float64(INPUTS))
    assert model.tasks == ("a", "b")
    side_by_side = np.concatenate([features["a"], features["b"]], 1)
    np.testing.assert_allclose(output["features"], side_by_side, rtol=2e-4, atol=1e-4)
    for task, logits in output["logits"].items():
        expected = dense(leaves, f"heads/{task}", features[task])
        np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-4)
        read = models.read_by(model, task, output["features"])
        np.testing.assert_allclose(read, features[task], rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("name", SHARING)
def test_parameters(name):
    _, leaves = built(name)
    assert sum(leaf.size for leaf in leaves.values()) == COUNTS[name]


@pytest.mark.parametrize("name", some("mmoe", "ple"))
def test_a_task_owns_what_its_head_alone_reads(name):
    model, leaves = built(name)

    @jax.jit
    def gradients(leaves):
        def totals(leaves):
            logits = model.apply(paths.nest(leaves), {}, INPUTS)[0]["logits"]
            return {task: each.sum() for task, each in logits.items()}

        return jax.jacrev(totals)(leaves)

    by_task = gradients(leaves)
    owned = {
        task: {path for path in leaves if paths.matches(model.owned_by(task), path)}
        for task in HEADS
    }
    for task, other in (("a", "b"), ("b", "a")):
        gradient = by_task[task]
        assert not any(np.any(gradient[path]) for path in owned[other])
        others = [path for path in leaves if "backbone" in path and path not in owned[other]]
        unread = [path for path in others if not np.any(gradient[path])]
        assert not unread or name == "ple", unread


@pytest.mark.parametrize("name", some("ple", "per_task"))
def test_cut_at_every_block(name):
    model, leaves = built(name)
    params = paths.nest(leaves)
    whole = model.apply(params, {}, INPUTS)[0]
    for block in model.blocks:
        first, rest = model.cut(block)
        given = first.apply(params, {}, INPUTS)[0]["features"]
        output = rest.apply(params, {}, given)[0]
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), output, whole)


def leaves_of(model, given):
    """{path: leaf} of a model that takes what it can from another one's."""
    start = paths.flatten(model.init(jax.random.key(3), INPUTS)[0])
    return start | {path: leaf for path, leaf in given.items() if path in start}


def logits_of(model, leaves):
    return model.apply(paths.nest(leaves), {}, INPUTS)[0]["logits"]


@pytest.mark.parametrize("name", ["task_embedding", "per_task"])
def test_starts_as_the_model_that_it_is_made_from(name):
    given = paths.flatten(plain().init(jax.random.key(3), INPUTS)[0])
    model = SHARING[name](plain())
    logits = logits_of(model, leaves_of(model, given))
    jax.tree.map(np.testing.assert_array_equal, logits, logits_of(plain(), given))


def test_one_expert_is_a_shared_bottom():
    model = models.mmoe(plain(), "dense_1", experts=1)
    leaves = paths.flatten(model.init(jax.random.key(0), INPUTS)[0])
    shared = {path.replace("experts/expert_0/", ""): leaf for path, leaf in leaves.items()}
    expected = logits_of(plain(), shared)
    jax.tree.map(np.testing.assert_array_equal, logits_of(model, leaves), expected)


def test_cross_stitch_with_identity_is_separate_networks():
    model = models.cross_stitch(plain(), "dense_0", own=1.0)
    leaves = paths.flatten(model.init(jax.random.key(0), INPUTS)[0])
    for task in HEADS:
        alone = {path.replace(f"/network_for_{task}", ""): leaf for path, leaf in leaves.items()}
        logits = logits_of(model, leaves)[task]
        np.testing.assert_allclose(logits, logits_of(plain(), alone)[task], rtol=1e-5, atol=1e-6)


def test_units_start_with_shares_that_sum_to_one():
    heads = {**HEADS, "c": classes(2)}
    model = models.cross_stitch(models.mlp(heads, (4,)), "dense_0", own=0.8)
    units = model.init(jax.random.key(0), INPUTS)[0]["backbone"]["dense_0"]["units"]
    np.testing.assert_allclose(units, np.repeat((np.eye(3) * 0.7 + 0.1)[..., None], 4, -1))


def test_attention_over_images_resizes_what_a_task_had():
    model = models.task_attention(models.conv_net(HEADS), "conv_1")
    images = np.zeros((2, 8, 8, 1), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)[0]["backbone"]
    assert shapes["conv_2_attention"]["hidden_for_a"]["kernel"].shape == (64 + 64, 64)
    assert shapes["dense_0_attention"]["hidden_for_a"]["kernel"].shape == (64 + 64, 64)


def test_the_model_of_one_task_merges():
    model, leaves = built("per_task")
    with pytest.raises(ValueError, match=r"to task 'b' alone.*of_task\(model, params, 'b'\)"):
        model.merge(paths.nest(leaves))
    alone, params = models.of_task(model, paths.nest(leaves), "a")
    assert not any("_for_b" in path for path in paths.flatten(params))
    merged = alone.merge(params)
    assert merged[0].adapters == () and list(merged[0].heads) == ["a"]
    logits = merged[0].apply(merged[1], {}, INPUTS)[0]["logits"]["a"]
    np.testing.assert_allclose(logits, logits_of(model, leaves)["a"], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="unknown head 'c'"):
        models.of_task(model, paths.nest(leaves), "c")


def test_batch_statistics_and_dropout_of_copies():
    images = np.random.default_rng(0).normal(size=(6, 4, 4, 1)).astype(np.float32)
    model = models.mmoe(models.conv_net(HEADS, batch_norm=True), "conv_2", experts=2)
    params, statistics = jax.jit(model.init)(jax.random.key(0), images)

    @functools.partial(jax.jit, static_argnums=0)
    def moved(live):
        return dataclasses.replace(model, live=live).apply(params, statistics, images, train=True)

    wholly, partly = (
        paths.flatten(moved(live)[1]) for live in ((".*",), ("backbone/experts/expert_1/.*",))
    )
    for path, old in paths.flatten(statistics).items():
        assert np.any(wholly[path] != old)
        assert np.any(partly[path] != old) == ("expert_1" in path)


def test_parts_of_other_libraries_are_copied():
    def apply(params, inputs):
        return inputs @ params["kernel"]

    def start(rng, inputs):
        return {"kernel": jax.random.normal(rng, (inputs.shape[1], 4))}

    model = models.mmoe(models.from_functions(start, apply, HEADS), "body", experts=2)
    leaves = paths.flatten(model.init(jax.random.key(0), INPUTS)[0])
    experts = [INPUTS @ leaves[f"backbone/experts/expert_{e}/body/kernel"] for e in (0, 1)]
    assert np.any(experts[0] != experts[1])
    features = mixture(leaves, "backbone/experts/gate_for_a", np.float64(INPUTS), experts)
    output = model.apply(paths.nest(leaves), {}, INPUTS)[0]
    np.testing.assert_allclose(output["features"][:, :4], features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: models.mmoe(plain(), "dense_3"), "unknown block 'dense_3'"),
        (lambda: models.mmoe(models.mlp({}), "dense_0"), "without heads has no tasks"),
        (lambda: models.ple(built("mmoe")[0], "experts"), "a, b of this model have features"),
        (lambda: models.mmoe(plain(), "dense_1", experts=0), "experts"),
        (lambda: models.cross_stitch(plain(), "dense_0", own=1.5), "own"),
        (lambda: models.mmoe(models.mlp({"x_for_y": classes(2)}), "dense_0"), "without `_for_`"),
        (lambda: models.per_task(plain(), lambda model, name: model), "puts one adapter on"),
    ],
)
def test_what_cannot_be_built(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_head_that_is_no_task():
    model = dataclasses.replace(built("mmoe")[0], heads={**HEADS, "ab": classes(2)})
    with pytest.raises(ValueError, match=r"unknown task 'ab'.*the model that it is made from"):
        model.init(jax.random.key(0), INPUTS)
    inside = functools.partial(adapters.lora, targets=["backbone/experts/.*/kernel"], rank=2)
    model = models.per_task(built("mmoe")[0], inside, "lora")
    with pytest.raises(ValueError, match=r"acts in block 'experts', which all tasks pass at once"):
        model.apply(model.init(jax.random.key(0), INPUTS)[0], {}, INPUTS)
