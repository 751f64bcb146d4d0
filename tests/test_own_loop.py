"""Our parts inside somebody's own Flax and Optax loop: each against an independent value."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxtl import losses, models, paths, pretrained
from jaxtl.models import adapters


class Net(nn.Module):
    """Somebody's own network."""

    @nn.compact
    def __call__(self, x, train=False):
        features = nn.relu(nn.Dense(8, name="hidden")(x))
        return nn.Dense(3, name="out")(features)


net = Net()
rng = np.random.default_rng(0)
source = rng.normal(size=(24, 5)).astype(np.float32)
labels = np.arange(24) % 3
target = source + np.float32(0.7)


@pytest.fixture(scope="module")
def params():
    return jax.jit(net.init)(jax.random.key(0), source)["params"]


def gradient_steps(loss_fn, params, tx, steps=5):
    """A loop as people write it."""
    opt_state = tx.init(params)

    @jax.jit
    def step(params, opt_state):
        loss, gradients = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    for _ in range(steps):
        params, opt_state, loss = step(params, opt_state)
    return params, loss


def cross_entropy(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def task_loss(params):
    return cross_entropy(net.apply({"params": params}, source))


def hidden(params, x):
    return nn.relu(jnp.dot(x, params["hidden"]["kernel"]) + params["hidden"]["bias"][None])


def by_hand(params):
    """(features, task loss) in NumPy."""
    layers = jax.tree.map(np.asarray, params)
    features = np.maximum(source @ layers["hidden"]["kernel"] + layers["hidden"]["bias"], 0)
    logits = features @ layers["out"]["kernel"] + layers["out"]["bias"]
    scores = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return features, -scores[np.arange(24), labels].mean()


def same_trees(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool(jnp.array_equal(x, y)), a, b))


def test_a_loss_in_a_loop(params):
    def loss_fn(params):
        near, far = hidden(params, source), hidden(params, 2 * target)
        return task_loss(params) + 10 * losses.coral(near, far)

    def gap(params):
        layer = jax.tree.map(np.asarray, params["hidden"])
        features = (
            np.maximum(x @ layer["kernel"] + layer["bias"], 0) for x in (source, 2 * target)
        )
        near, far = (np.cov(each, rowvar=False) for each in features)
        return np.sum((near - far) ** 2) / (4 * 8**2)

    trained, loss = gradient_steps(loss_fn, params, optax.adam(1e-2), steps=1)
    np.testing.assert_allclose(loss, by_hand(params)[1] + 10 * gap(params), rtol=1e-5)
    assert gap(trained) < gap(params)


def test_a_gradient_reversal_in_a_loop(params):
    def domain_loss(params, reverse):
        features = hidden(params, np.concatenate([source, target]))
        if reverse:
            features = losses.reverse_gradient(features, 0.3)
        is_target = jnp.repeat(jnp.arange(2), len(source))
        return optax.sigmoid_binary_cross_entropy(features.sum(-1), is_target).mean()

    both = jax.jit(lambda params: [jax.grad(domain_loss)(params, way) for way in (False, True)])
    plain, reverse = (np.asarray(each["hidden"]["kernel"]) for each in both(params))
    assert np.abs(plain).max() > 1e-3
    np.testing.assert_allclose(reverse, -0.3 * plain, rtol=1e-5)


@pytest.mark.parametrize("way", ["labels", "split"])
def test_freezing_by_path_patterns(params, way):
    """Both ways end with the bits of a loop over the output layer alone."""
    adam = optax.adam(1e-2)
    if way == "labels":
        groups = paths.label_tree(params, {"train": ["out/.*"]})
        tx = optax.multi_transform({"train": adam, paths.FROZEN: optax.set_to_zero()}, groups)
        trained, loss = gradient_steps(task_loss, params, tx)
    else:
        free, frozen = paths.split(params, ["out/.*"])
        free, loss = gradient_steps(lambda free: task_loss(paths.join(free, frozen)), free, adam)
        trained = paths.join(free, frozen)

    features, _ = by_hand(params)

    def output_loss(out):
        return cross_entropy(jnp.dot(features, out["kernel"]) + out["bias"][None])

    out, expected = gradient_steps(output_loss, params["out"], adam)
    assert same_trees(trained["hidden"], params["hidden"])
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for name, leaf in out.items():
        np.testing.assert_allclose(trained["out"][name], leaf, rtol=1e-5, atol=1e-7)
        assert not np.array_equal(leaf, params["out"][name])


def test_a_pattern_that_freezes_nothing_is_refused_there_too(params):
    for use in (lambda p: paths.label_tree(params, {"train": p}), lambda p: paths.split(params, p)):
        with pytest.raises(ValueError, match=r"'head/\.\*' matched no parameter. Closest paths"):
            use(["head/.*"])


def test_the_paths_of_other_libraries_are_matched_too():
    class Tower(nnx.Module):
        def __init__(self):
            keys = nnx.Rngs(0)
            self.layers = nnx.List([nnx.Linear(5, 4, rngs=keys), nnx.Linear(4, 3, rngs=keys)])

    weights = nnx.state(Tower(), nnx.Param)
    groups = paths.label_tree(weights, {"last": ["layers/1/.*"]})
    tx = optax.multi_transform({"last": optax.sgd(1.0), paths.FROZEN: optax.set_to_zero()}, groups)
    ones = jax.tree.map(jnp.ones_like, weights)
    updates, _ = tx.update(ones, tx.init(weights), weights)
    sums = {path[1]: float(leaf.sum()) for path, leaf in _leaves(updates) if path[2] == "bias"}
    assert sums == {0: 0.0, 1: -3.0}


def _leaves(tree):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield [getattr(key, "key", getattr(key, "idx", None)) for key in path], leaf


def test_an_adapter_on_a_module_of_ones_own(params):
    model = adapters.lora(models.from_linen(net, heads={}), ["backbone/body/hidden/.*kernel"], 2)
    both, statistics = jax.jit(model.init)(jax.random.key(1), source)
    both = {**both, "backbone": {"body": params}}  # trained before
    lora, frozen = paths.split(both, ["lora/.*"])

    def loss_fn(lora):
        output, _ = model.apply(paths.join(lora, frozen), statistics, source)
        return cross_entropy(output["features"])  # what the module gives: it has a head of its own

    trained, before = gradient_steps(loss_fn, lora, optax.adam(1e-1), steps=1)
    np.testing.assert_allclose(before, by_hand(params)[1], rtol=1e-6)
    _, merged = model.merge(paths.join(trained, frozen))
    body = merged["backbone"]["body"]
    a, b = (np.asarray(trained["lora"]["backbone"]["body"]["hidden"][name]) for name in "ab")
    expected = np.asarray(params["hidden"]["kernel"]) + 8 / 2 * a @ b
    np.testing.assert_allclose(body["hidden"]["kernel"], expected, rtol=1e-5, atol=1e-6)
    assert by_hand(body)[1] < by_hand(params)[1] and same_trees(body["out"], params["out"])


@pytest.mark.parametrize("adapter", [adapters.dora, adapters.pissa])
def test_adapters_that_read_the_kernels(adapter, params):
    """Trained kernels come from elsewhere; the model says the same with the adapter as without."""
    model = adapter(models.from_linen(net, heads={}), ["backbone/body/hidden/.*kernel"], 2)
    both, statistics = jax.jit(model.init)(jax.random.key(1), source)
    body = jax.tree.map(lambda leaf: 3 * leaf, params)
    solved = adapters.solve(model, {**both, "backbone": {"body": body}})
    leaves = jax.tree.map(np.asarray, solved[model.adapters[0].name])["backbone"]["body"]["hidden"]
    kernel = np.asarray(body["hidden"]["kernel"])
    if adapter is adapters.dora:
        np.testing.assert_allclose(leaves["magnitude"], np.linalg.norm(kernel, axis=0), rtol=1e-6)
    else:
        u, values, v = np.linalg.svd(kernel)
        largest = (u[:, :2] * values[:2]) @ v[:2]
        np.testing.assert_allclose(leaves["a"] @ leaves["b"], largest, rtol=1e-4, atol=1e-5)
    output, _ = jax.jit(model.apply)(solved, statistics, source)
    expected = by_hand(body)[0] @ np.asarray(body["out"]["kernel"])
    np.testing.assert_allclose(output["features"], expected, rtol=1e-4, atol=1e-5)


def test_weights_of_a_file_in_a_module_of_ones_own(tmp_path):
    kernel, bias = rng.normal(size=(8, 5)), rng.normal(size=8)  # [out, in], as PyTorch writes it
    file = tmp_path / "published.npz"
    np.savez(file, **{"module.hidden.weight": kernel, "module.hidden.bias": bias})

    def entry(path):
        name = path.removeprefix("backbone/body/").replace("/", ".")
        if name.endswith("kernel"):
            return pretrained.Entry(name.replace("kernel", "weight"), pretrained.DENSE)
        return pretrained.Entry(name)

    weights = pretrained.weights(file, pretrained.Scheme("mine", entry))
    model = models.from_linen(net, heads={})
    start, statistics = jax.jit(model.init)(jax.random.key(0), source)
    loaded, _, report = pretrained.load(
        weights, model, start, statistics, fresh=["backbone/body/out/.*"]
    )
    features = np.maximum(source @ kernel.T + bias, 0)
    body = loaded["backbone"]["body"]
    expected = features @ np.asarray(body["out"]["kernel"]) + np.asarray(body["out"]["bias"])
    output, _ = jax.jit(model.apply)(loaded, statistics, source)
    np.testing.assert_allclose(output["features"], expected, rtol=1e-4, atol=1e-5)
    assert same_trees(body["out"], start["backbone"]["body"]["out"])
    assert "transposed" in report and str(file) in report
    with pytest.raises(ValueError, match=r"backbone/body/out/bias"):
        pretrained.load(weights, model, start, statistics)
