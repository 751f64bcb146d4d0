"""Gradient training of all parameters or of those that a pattern names.

All of these minimise the same objective, `jaxtl.losses.supervised`, linear in the weights of the
batch: one labelled domain is ordinary fine-tuning, a source and a target domain are the joint
objective `L_shared + lambda * L_task`, several heads are multitask learning, D weighted target
domains are generalized learning. They differ in what trains, and that is one line.
"""

from collections.abc import Mapping, Sequence

import optax

from jaxtl.losses import supervised
from jaxtl.models import apply_flat
from jaxtl.paths import FROZEN
from jaxtl.plan import Method, Update


def supervised_update(
    lambdas: Mapping[str, float] | None = None, optimizers: tuple[str, ...] = ("all",)
) -> Update:
    """One gradient step on the supervised objective.

    Args:
        lambdas: {head: factor of its loss}, 1 where absent.
        optimizers: those it steps.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch["inputs"], rng=rng, train=True)
        loss, metrics = supervised(model.heads, output["logits"], batch, lambdas)
        return loss, (state, metrics if len(metrics) > 1 else {})

    return Update(loss_fn, optimizers, per_example=True)


def full(tx: optax.GradientTransformation, *, lambdas: Mapping[str, float] | None = None) -> Method:
    """Every parameter trains: full transfer after a source stage, otherwise from scratch.

    Args:
        tx: optax transformation.
        lambdas: {head: factor of its loss}, 1 where absent.
    """
    return Method({"all": ((".*",), tx)}, (supervised_update(lambdas),))


def partial(
    tx: optax.GradientTransformation,
    *,
    freeze: Sequence[str],
    lambdas: Mapping[str, float] | None = None,
) -> Method:
    """Shared layers stay as they were loaded; the others train.

    Args:
        tx: optax transformation of what trains.
        freeze: path patterns, such as `backbone/conv_.*`.
        lambdas: {head: factor of its loss}, 1 where absent.
    """
    groups = {FROZEN: (tuple(freeze), optax.set_to_zero()), "all": ((".*",), tx)}
    return Method(groups, (supervised_update(lambdas),))


def probe(tx: optax.GradientTransformation) -> Method:
    """Feature transfer with trained heads: the backbone `h_w` is frozen, `g_wt` on top trains."""
    return Method({"all": (("heads/.*",), tx)}, (supervised_update(),))


def grouped(
    groups: Mapping[str, tuple[Sequence[str], optax.GradientTransformation]],
    *,
    lambdas: Mapping[str, float] | None = None,
) -> Method:
    """A transformation (learning rate, decay, ...) for each group of paths.

    Args:
        groups: {name: (path patterns, optax transformation)}; the first match trains a parameter,
            what no group matches is frozen.
        lambdas: {head: factor of its loss}, 1 where absent.
    """
    names = tuple(name for name in groups if name != FROZEN)
    return Method(dict(groups), (supervised_update(lambdas, names),))
