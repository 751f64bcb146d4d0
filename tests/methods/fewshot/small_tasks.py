"""A small network and episodes for it, in float64, and the same in NumPy."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.models import Block, classes, from_blocks, regression
from jaxtl.plan import Examples, StageShape, State
from jaxtl.plan.batch import make_batch

WAYS, SHOTS, QUERIES, INPUTS, WIDTH = 3, 2, 4, 4, 5
S = WAYS * SHOTS
KEY = jax.random.key(3)


def network(head):
    blocks = [Block(n, nn.Dense(WIDTH), nn.tanh) for n in ("first", "second")]
    return from_blocks(blocks, {"task": head})


MODEL = network(classes(WAYS))
NUMBERS = network(regression(2))
PLAIN = network(regression())


def initialiser(model, learner=None):
    """() -> parameters as a stage initialises them, those of a learner among them."""

    def init():
        params, _ = model.init(jax.random.key(0), jnp.zeros((1, INPUTS)))
        sizes = {path: leaf.shape for path, leaf in flat(params).items()}
        shape = StageShape(("source",), (9,), {"task": model.heads["task"].size}, 2, sizes)
        output = {"features": jnp.zeros((1, WIDTH))}
        modules = learner.modules if learner else {}
        return params | {name: module.init(KEY, output, shape) for name, module in modules.items()}

    return init


@functools.cache
def initial(model, learner=None):
    return jax.tree.map(np.asarray, jax.jit(initialiser(model, learner))())


def parameters(model=MODEL, learner=None, seed=0):
    """Float64 where that is on, with noise: the first layers do not end near 0."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jnp.asarray(x.astype(float) + 0.3 * rng.normal(size=x.shape)),
        initial(model, learner),
    )


def flat(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def episode(seed=0, numbers=0, shots=SHOTS, ways=WAYS):
    """(support, queries) in NumPy float64; of classes, or of `numbers` outputs.

    Labels of the queries are those that a learner must not see.
    """
    rng = np.random.default_rng(seed)

    def draw(each):
        labels = rng.permutation(np.repeat(np.arange(ways), each)).astype(np.int32)
        inputs = rng.normal(size=(len(labels), INPUTS)) + labels[:, None]
        if numbers:
            labels = np.stack([np.sin(inputs.sum(1) + k) for k in range(numbers)], 1)
            labels = labels[:, 0] if numbers == 1 else labels
        return Examples(inputs, labels, np.ones(len(inputs)))

    return draw(shots), draw(QUERIES)


def hidden(examples):
    numbers = np.issubdtype(examples.labels.dtype, np.floating)
    return examples._replace(labels=np.full_like(examples.labels, np.nan if numbers else -1))


def answers(learner, params, support, queries, *, model=MODEL, state=None, train=False, ways=None):
    """Logits [queries, ways] of one episode."""
    state = State({}) if state is None else state
    ways = ways or model.heads["task"].size

    @jax.jit
    def predict(params, state, support, queries):
        return learner.predict(
            model, params, state, support, queries, ways=ways, rng=KEY, train=train
        )[0]

    return predict(params, state, support, hidden(queries))


def query_loss(learner, params, support, queries, **options):
    """Mean loss of the queries."""
    model = options.get("model", MODEL)
    logits = answers(learner, params, support, queries, **options)
    return model.heads["task"].loss(logits, jnp.asarray(queries.labels)).mean()


def batch_of(*episodes):
    """The episodes as a batch [tasks, rows]."""
    rows = [jax.tree.map(lambda a, b: np.concatenate([a, b]), *pair) for pair in episodes]
    inputs, labels, present = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *rows)
    shots, total = len(episodes[0][0].labels), present.shape[1]
    roles = ("support",) * shots + ("query",) * (total - shots)
    return make_batch(inputs, {"task": labels}, present=present, roles=roles)


def features(params, inputs):
    """Of the network, in NumPy."""
    x = np.asarray(inputs, np.float64)
    for name in ("first", "second"):
        layer = jax.tree.map(np.asarray, params["backbone"][name])
        x = np.tanh(x @ layer["kernel"] + layer["bias"])
    return x
