"""AdaLoRA's budget against a sequence computed in NumPy, and its regulariser."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from two_layers import KEY, MODEL, SGD, draw, moved

from jaxtl.methods import transfer
from jaxtl.methods.transfer.rank_budget import budget, rank_budget
from jaxtl.models import adapters
from jaxtl.plan import State

SHAPES = {"first": (5, 4), "second": (4, 6)}
RANK = 3


def parameters(seed):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    kernels = {
        name: {"p": draw(rows, RANK), "values": draw(RANK), "q": draw(RANK, columns)}
        for name, (rows, columns) in SHAPES.items()
    }
    return {"adalora": {"backbone": kernels}, "heads": {"target": {"kernel": draw(2, 2)}}}


def test_budget_schedule():
    """6 triplets down to 2 between steps 2 and 6: 2 + 4 (1 - (t - 2) / 4)^3, rounded down."""
    steps = [int(budget(jnp.int32(t), 6, 2, 2, 6)) for t in range(9)]
    assert steps == [6, 6, 6, 3, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("every", [1, 2])
def test_pruned_values(every):
    num_steps, warm_up, cool_down, rate, beta_1, beta_2 = 9, 2, 3, 0.1, 0.6, 0.7
    tx = rank_budget(
        optax.sgd(rate),
        num_steps,
        target_rank=1,
        warm_up=warm_up,
        cool_down=cool_down,
        every=every,
        sensitivity_decay=beta_1,
        uncertainty_decay=beta_2,
    )
    ours = parameters(0)
    state, update = tx.init(ours), jax.jit(tx.update)
    theirs = jax.tree.map(np.float64, ours)
    smooth = jax.tree.map(np.zeros_like, theirs["adalora"]["backbone"])
    spread = jax.tree.map(np.zeros_like, smooth)
    kept = {name: np.ones(RANK, bool) for name in SHAPES}
    zeros = []
    for t in range(num_steps):
        grads = parameters(100 + t)
        updates, state = update(grads, state, ours)
        ours = optax.apply_updates(ours, updates)

        scores = {}
        for name in SHAPES:
            part = {}
            for leaf in ("p", "values", "q"):
                w = theirs["adalora"]["backbone"][name][leaf]
                now = np.abs(w * grads["adalora"]["backbone"][name][leaf])
                bar = beta_1 * smooth[name][leaf] + (1 - beta_1) * now
                gap = beta_2 * spread[name][leaf] + (1 - beta_2) * np.abs(now - bar)
                smooth[name][leaf], spread[name][leaf], part[leaf] = bar, gap, bar * gap
            scores[name] = [
                part["values"][i] + part["p"][:, i].mean() + part["q"][i].mean()
                for i in range(RANK)
            ]
        end = num_steps - cool_down
        if (warm_up <= t < end and t % every == 0) or t == end:
            count = int(2 + 4 * (1 - (t - warm_up) / (end - warm_up)) ** 3)
            ranked = sorted((-s, n, i) for n in SHAPES for i, s in enumerate(scores[n]))
            chosen = {(n, i) for _, n, i in ranked[:count]}
            kept = {n: np.array([(n, i) in chosen for i in range(RANK)]) for n in SHAPES}
            pruned = True
        else:
            pruned = t > end
        theirs = jax.tree.map(lambda w, g: w - rate * g, theirs, grads)
        for name in SHAPES if pruned else ():
            theirs["adalora"]["backbone"][name]["values"] *= kept[name]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)
        values = [ours["adalora"]["backbone"][name]["values"] for name in SHAPES]
        zeros.append(int(sum((value == 0).sum() for value in values)))
    assert zeros == ([0, 0, 0, 3, 4, 4, 4, 4, 4] if every == 1 else [0, 0, 0, 0, 4, 0, 4, 4, 4])


def test_orthogonality():
    params = parameters(0)
    expected = 0
    for own in params["adalora"]["backbone"].values():
        p, q = np.float64(own["p"]), np.float64(own["q"])
        expected += ((p.T @ p - np.eye(RANK)) ** 2).sum() + ((q @ q.T - np.eye(RANK)) ** 2).sum()
    np.testing.assert_allclose(adapters.orthogonality(params), expected, rtol=1e-5)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 3)))[0]
    own = {"p": rotation, "values": np.ones(3), "q": rotation.T}
    own = jax.tree.map(np.float32, own)
    np.testing.assert_allclose(adapters.orthogonality({"any": {"x": own}}), 0, atol=1e-6)


def test_the_loss_contains_the_regulariser():
    model = adapters.adalora(MODEL, ("backbone/.*/kernel",), 3)
    params = moved(jax.jit(model.init)(KEY, jnp.zeros((1, 4)))[0])
    method, batch = transfer.adalora(SGD, 3, target_rank=1.5, weight=0.25), draw()
    losses = [
        each.updates[0].loss(model, params, State({}), batch, KEY, 0)
        for each in (method, transfer.full(SGD))
    ]
    (loss, (state, metrics)), (plain, _) = losses
    regulariser = adapters.orthogonality(params)
    np.testing.assert_allclose(loss, plain + 0.25 * regulariser, rtol=1e-5)
    assert state == State({}) and set(metrics) == {"target_loss", "orthogonality"}
    assert metrics["orthogonality"] == regulariser > 0.1
    assert method.optimizers["all"][0] == ("adalora/.*", "heads/.*")


def test_errors():
    tx = optax.sgd(0.1)
    with pytest.raises(ValueError, match="warm_up=4 and cool_down=6 leave no step of 10"):
        transfer.adalora(tx, 10, warm_up=4, cool_down=6)
    params = parameters(0)
    with pytest.raises(ValueError, match=r"budget of rank 4 needs.*first': 3"):
        rank_budget(tx, 10, target_rank=4).init(params)
    with pytest.raises(ValueError, match="got none"):
        rank_budget(tx, 10).init({"heads": params["heads"]})
