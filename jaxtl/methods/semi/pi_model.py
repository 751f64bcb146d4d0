"""The Pi-model: two noisy looks at an example give one prediction."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.extra_views import apply_beside, with_targets
from jaxtl.methods.adapt.sides import Weight, at_step, example_mean, head_of, target_rows
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.plan import Method, PyTree


def pi_model(
    tx: optax.GradientTransformation | Groups,
    *,
    augment: Callable[[jax.Array, PyTree], PyTree] | None = None,
    weight: Weight = 3.0,
) -> Method:
    """The supervised objective + weight * the squared difference of two predictions of a target.

    Probabilities, and a mean over the classes. Both predictions have a gradient. The paper compares
    labelled examples too, and lets the weight rise: `gaussian_rise(num_steps, high)`, there over
    80 of 300 epochs.

    Args:
        augment: (rng, inputs [n, ...] float) -> inputs, applied to the targets twice; None leaves
            them to differ by dropout.

    Laine & Aila, "Temporal Ensembling for Semi-Supervised Learning", ICLR 2017. arXiv:1610.02242,
    Algorithm 1.
    """
    augment = augment or (lambda rng, inputs: inputs)

    def loss_fn(model, params, state, batch, rng, step):
        head, targets = head_of(batch), target_rows(batch.inputs, batch)
        first, second = (augment(jax.random.fold_in(rng, i), targets) for i in (1, 2))
        batch = with_targets(batch, first)
        output, other, state = apply_beside(model, params, state, batch, second, rng)
        task, _ = supervised(model.heads, output["logits"], batch)
        logits, present = target_rows((output["logits"][head], batch.present), batch)
        gaps = jax.nn.softmax(logits) - jax.nn.softmax(other["logits"][head])
        consistency = example_mean(jnp.mean(gaps**2, -1), present)
        loss = task + at_step(weight, step) * consistency
        return loss, (state, {"task_loss": task, "consistency": consistency})

    return one_update(as_groups(tx), loss_fn, per_example=True)


def gaussian_rise(num_steps: int, high: float) -> optax.Schedule:
    """high * exp(-5 (1 - t)^2) for t from 0 to 1 within so many steps, then high."""

    def schedule(step: jax.Array) -> jax.Array:
        left = 1 - jnp.minimum(step / num_steps, 1.0)
        return high * jnp.exp(-5 * left**2)

    return schedule
