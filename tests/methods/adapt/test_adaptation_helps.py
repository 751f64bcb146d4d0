"""Shifts that cost a source-only model much of its accuracy, and methods that win it back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shapes import SHAPE

from jaxtl.losses import reversal_schedule
from jaxtl.methods import adapt, transfer
from jaxtl.models import classes, mlp, mlp_head
from jaxtl.plan import State
from jaxtl.plan.batch import make_batch

TX, SEEDS, BATCH = optax.adam(3e-3), 3, 64


def translated(n, seed, shift):
    """Three round classes on a circle; the target's are moved."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % 3
    angle = 2 * np.pi * labels / 3
    inputs = np.stack([2 * np.cos(angle), 2 * np.sin(angle)], 1) + 0.3 * rng.normal(size=(n, 2))
    return (inputs + shift * np.array([1.0, 0.3])).astype(np.float32), labels


def rotated(n, seed, shift):
    """Two interleaved half moons; the target's are turned by `shift` radians."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % 2
    t, sign = rng.uniform(0, np.pi, n), 1 - 2 * labels
    inputs = np.stack([np.cos(t) * sign + labels - 0.5, np.sin(t) * sign + 0.5 * labels - 0.25], 1)
    inputs += 0.08 * rng.normal(size=inputs.shape)
    turn = np.array([[np.cos(shift), np.sin(shift)], [-np.sin(shift), np.cos(shift)]])
    return (inputs @ turn).astype(np.float32), labels


def noisy(n, seed, shift):
    """Two informative pairs of features; in the target the better one is noise of size `shift`."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % 3
    angle = 2 * np.pi * labels / 3
    centres = np.stack([2 * np.cos(angle), 2 * np.sin(angle)], 1)
    good = centres + 0.2 * rng.normal(size=(n, 2))
    pairs = centres + 0.5 * rng.normal(size=(n, 2)), shift * rng.normal(size=(n, 2))
    inputs = np.concatenate([pairs[0], pairs[1] if shift else good], 1)
    return inputs.astype(np.float32), labels


@functools.cache
def accuracy(name, problem, shift, steps, hidden):
    """(source, target) test accuracy, the mean over seeds."""
    method = METHODS[name](steps)
    (x, y), (moved, _) = problem(300, 1, 0.0), problem(300, 2, shift)
    model = mlp({"task": classes(int(y.max()) + 1)}, hidden)
    x, y, moved = map(jnp.asarray, (x, y, moved))
    weights = jnp.stack([jnp.ones(BATCH), jnp.zeros(BATCH)], 1)

    def train(seed):
        params, _ = model.init(jax.random.key(seed), x[:1])
        output = {"features": jnp.zeros((1, (x.shape[1], *hidden)[-1]))}
        for module, network in method.modules.items():
            params[module] = network.init(jax.random.key(seed + 9), output, SHAPE)

        def step(carry, i):
            params, opt_state = carry
            key = jax.random.fold_in(jax.random.key(seed), i)
            rows = jax.random.randint(key, (2, BATCH), 0, len(x))
            batch = make_batch(
                jnp.stack([x[rows[0]], moved[rows[1]]], 1),
                {"task": jnp.stack([y[rows[0]], jnp.full(BATCH, -1)], 1)},
                {"task": weights},
                roles=("source", "target"),
            )
            loss = functools.partial(method.updates[0].loss, model)
            grads, _ = jax.grad(loss, has_aux=True)(params, State({}), batch, key, i)
            updates, opt_state = TX.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        (params, _), _ = jax.lax.scan(step, (params, TX.init(params)), jnp.arange(steps))
        return params

    trained = jax.jit(jax.vmap(train))(jnp.arange(SEEDS))

    def mean(inputs, labels):
        logits = jax.vmap(lambda p: model.apply(p, {}, inputs)[0]["logits"]["task"])(trained)
        return float(np.mean(np.asarray(logits).argmax(-1) == labels[None]))

    return mean(*problem(500, 3, 0.0)), mean(*problem(500, 4, shift))


METHODS = {
    "source_only": lambda steps: transfer.full(TX),
    "dan": lambda steps: adapt.dan(TX, weight=3.0),
    "deep_coral": lambda steps: adapt.deep_coral(TX),
    "mcc": lambda steps: adapt.mcc(TX),
    "dann": lambda steps: adapt.dann(
        TX, reversal=reversal_schedule(steps), discriminator=mlp_head((32,), 2)
    ),
}
MOVED = (translated, 1.8, 400, (32,))
NOISY = (noisy, 3.0, 800, ())
TURNED = (rotated, 0.7, 600, (32, 32))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, problem",
    [("dan", MOVED), ("deep_coral", NOISY), ("mcc", MOVED), ("dann", TURNED)],
)
def test_adaptation_wins_back_what_the_shift_costs(name, problem):
    on_source, before = accuracy("source_only", *problem)
    assert on_source > 0.99 and before < 0.75
    on_source, after = accuracy(name, *problem)
    assert on_source > 0.97 and after > before + 0.1, (before, after)
