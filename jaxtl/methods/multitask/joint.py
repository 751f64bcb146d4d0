"""All tasks at once, by a rule for their losses or for their gradients."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import checked
from jaxtl.losses import Task, task_losses
from jaxtl.methods.multitask.angles import watched
from jaxtl.methods.multitask.gram import weighted_sum
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.paths import flatten, matches, nest
from jaxtl.plan import Combine, Method, PyTree, Weigh

BACKBONE = ("backbone/.*",)
EVERYTHING = (".*",)


@checked
def joint(
    tx: optax.GradientTransformation | Groups,
    rule: Weigh | Combine,
    *,
    per: Task = "head",
    shared: Sequence[str] | None = None,
) -> Method:
    """Trains on several losses, which a rule weighs, or whose gradients it combines.

    The losses are the terms of the supervised objective, domain weights included, and each is
    logged. Where a rule combines gradients, it sees those of shared parameters; what the tasks do
    not share gets the sum of the gradients, as if each task trained its own, or, by a rule that
    weighs losses as well, a weighted sum. How the gradients agree is logged too: `angles.watched`.

    Args:
        rule: such as `multitask.dwa()`, one backward pass, or `multitask.pcgrad()`, one for each
            task.
        per: what has a loss of its own, as in `losses.task_losses`.
        shared: path patterns of what a combining rule is for; by default the backbone where heads
            are the tasks, and otherwise everything, as domains share the heads too.

    Raises:
        ValueError: there are fewer than two losses, or `shared` matches nothing that trains.
    """
    if shared is None:
        shared = BACKBONE if per == "head" else EVERYTHING

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        losses, metrics = task_losses(model.heads, output["logits"], batch, per)
        if len(losses) < 2:
            raise ValueError(
                f"several losses are joined, and this stage has one, {next(iter(metrics))!r}: name "
                f"several {'heads' if per == 'head' else 'domains'}, or train with transfer.full"
            )
        return losses, (state, metrics)

    if isinstance(rule, Combine):
        rules = {"combine": on_shared(watched(rule), tuple(shared))}
    else:
        rules = {"weigh": rule}
    return one_update(as_groups(tx), loss_fn, per_example=True, **rules)


def on_shared(rule: Combine, shared: Sequence[str]) -> Combine:
    """A rule of the gradients of some parameters; the others get a sum over the tasks.

    It is weighted by `rule.others`, or plain.

    Args:
        shared: path patterns. The rule gets {path: leaf} of what matches, one level deep.

    Raises:
        ValueError: they match nothing that trains.
    """

    def part(groups: PyTree) -> dict[str, jax.Array]:
        paths = {path: leaf for group in groups.values() for path, leaf in flatten(group).items()}
        chosen = {path: leaf for path, leaf in paths.items() if matches(shared, path)}
        if not chosen:
            raise ValueError(
                f"shared={list(shared)} matches nothing that trains, so that there are no "
                f"gradients to combine; what trains is {', '.join(sorted(paths)[:5])}, ..."
            )
        return chosen

    def init(trainable: PyTree, losses: jax.Array) -> PyTree:
        return rule.init(part(trainable), losses)

    def update(jacobian: PyTree, losses: jax.Array, state: PyTree, rng: jax.Array):
        combined, after, metrics = rule.update(part(jacobian), losses, state, rng)
        if rule.others is None:
            weights = jnp.ones_like(losses)
        else:
            weights = rule.others(losses, state, after)
        grads = {
            name: nest(
                {
                    path: combined[path] if path in combined else weighted_sum(weights, leaf)
                    for path, leaf in flatten(group).items()
                }
            )
            for name, group in jacobian.items()
        }
        return grads, after, metrics

    return Combine(init, update)
