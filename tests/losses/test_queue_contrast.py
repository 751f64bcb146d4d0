import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtl.losses import queue_contrast

N, CLASSES, LENGTH = 5, 3, 4


def draw():
    rng = np.random.default_rng(0)
    own = rng.uniform(-1, 1, N).astype(np.float32)
    queued = rng.uniform(-1, 1, (N, CLASSES, LENGTH)).astype(np.float32)
    filled = np.arange(LENGTH) < np.array([[4], [2], [0]])
    return own, queued, np.array([0, 1, 2, 1, 0]), filled


def loops(own, queued, labels, filled, temperature):
    losses = []
    for i, label in enumerate(labels):
        positive, others = [own[i] / temperature], []
        for c in range(CLASSES):
            for k in range(LENGTH):
                if filled[c, k]:
                    (positive if c == label else others).append(queued[i, c, k] / temperature)
        total = np.log(np.sum(np.exp(np.array(positive + others, float))))
        losses.append(np.mean([total - s for s in positive]))
    return np.array(losses)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_value_and_gradient_are_those_of_a_loop(temperature):
    own, queued, labels, filled = draw()
    value = queue_contrast(own, queued, labels, filled, temperature)
    np.testing.assert_allclose(value, loops(own, queued, labels, filled, temperature), rtol=1e-4)

    def total(own, queued):
        return queue_contrast(own, queued, labels, filled, temperature).sum()

    slope, slopes = jax.grad(total, argnums=(0, 1))(own, queued)
    assert np.isfinite(slopes).all() and not np.asarray(slopes)[:, ~filled].any()
    p = np.exp(own[2] / temperature) / (
        np.exp(own[2] / temperature) + np.exp(queued[2][filled] / temperature).sum()
    )
    # The third example has its own key as the only positive one.
    np.testing.assert_allclose(slope[2], (p - 1) / temperature, rtol=1e-4, atol=1e-6)


def test_empty_queues_cost_nothing_and_equal_keys_the_log_of_their_number():
    own, queued, labels, filled = draw()
    assert not queue_contrast(own, queued, labels, np.zeros_like(filled)).any()
    equal = queue_contrast(jnp.ones(N), jnp.ones(queued.shape), labels, np.ones_like(filled))
    np.testing.assert_allclose(equal, np.log(1 + CLASSES * LENGTH), rtol=1e-5)
