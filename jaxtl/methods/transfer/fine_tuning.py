"""Gradient training of all parameters or of those that a pattern names.

All of these minimise the same objective, `jaxtl.losses.supervised`, linear in the weights of the
batch: one labelled domain is ordinary fine-tuning, a source and a target domain are the joint
objective `L_shared + lambda * L_task`, several heads are multitask learning, D weighted target
domains are generalized learning. They differ in what trains, and that is one line.
"""

from collections.abc import Iterable, Mapping, Sequence

import optax

from jaxtl.losses import supervised
from jaxtl.models import apply_flat
from jaxtl.paths import FROZEN, flatten, label
from jaxtl.plan import Aggregate, Combine, LossFn, Method, Params, Update, Weigh

Groups = Mapping[str, tuple[Sequence[str], optax.GradientTransformation]]


def supervised_update(
    lambdas: Mapping[str, float] | None = None, optimizers: tuple[str, ...] = ("all",)
) -> Update:
    """One gradient step of some optimizers on the supervised objective."""

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        loss, metrics = supervised(model.heads, output["logits"], batch, lambdas)
        return loss, (state, metrics if len(metrics) > 1 else {})

    return Update(loss_fn, optimizers, per_example=True)


def full(tx: optax.GradientTransformation, *, lambdas: Mapping[str, float] | None = None) -> Method:
    """Every parameter trains: full transfer after a source stage, otherwise from scratch."""
    return grouped({"all": ((".*",), tx)}, lambdas=lambdas)


def partial(
    tx: optax.GradientTransformation,
    *,
    freeze: Sequence[str],
    lambdas: Mapping[str, float] | None = None,
) -> Method:
    """Shared layers stay as they were loaded; the others train.

    Args:
        freeze: path patterns, such as `backbone/conv_.*`.
    """
    shared = (tuple(freeze), optax.set_to_zero())
    return grouped({FROZEN: shared, "all": ((".*",), tx)}, lambdas=lambdas)


def probe(tx: optax.GradientTransformation) -> Method:
    """Feature transfer with trained heads: the backbone `h_w` is frozen, `g_wt` on top trains."""
    return grouped({"all": (("heads/.*",), tx)})


def grouped(groups: Groups, *, lambdas: Mapping[str, float] | None = None) -> Method:
    """A transformation (learning rate, decay, ...) for each group of paths."""
    return one_update(dict(groups), supervised_update(lambdas).loss, per_example=True)


def as_groups(tx: optax.GradientTransformation | Groups) -> Groups:
    """The groups of a method: those given, or one transformation of all parameters."""
    return dict(tx) if isinstance(tx, Mapping) else {"all": ((".*",), tx)}


def one_update(
    groups: Groups,
    loss_fn: LossFn,
    *,
    per_example: bool,
    weigh: Weigh | None = None,
    combine: Combine | None = None,
    aggregate: Aggregate | None = None,
    **attributes,
) -> Method:
    """A method whose training step is one gradient step of all its groups.

    Args:
        loss_fn, per_example, weigh, combine, aggregate: as in `Update`.
        attributes: others of the method.
    """
    names = tuple(name for name in groups if name != FROZEN)
    update = Update(
        loss_fn,
        names,
        per_example=per_example,
        weigh=weigh,
        combine=combine,
        aggregate=aggregate,
    )
    return Method(groups, (update,), **attributes)


def trained_paths(
    groups: Groups,
    params: Params,
    *,
    names: Iterable[str] | None = None,
    heads: Iterable[str] | None = None,
) -> set[str]:
    """Paths of the parameters that groups train.

    Args:
        names: of the groups; all if None.
        heads: those with labels in the stage, as in its batches; the others do not train. All if
            None.
    """
    names = groups.keys() - {FROZEN} if names is None else set(names)
    patterns = {name: patterns for name, (patterns, _) in groups.items()}
    labels = label(flatten(params), patterns)

    def idle(path: str) -> bool:
        room, *rest = path.split("/")
        return heads is not None and room == "heads" and rest[0] not in heads

    return {path for path, group in labels.items() if group in names and not idle(path)}
