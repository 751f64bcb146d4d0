"""What a method must give: optimizers, and what its losses and rules return while traced."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxtl.blame import place_of
from jaxtl.form import describe, is_array
from jaxtl.plan import Method, PyTree, State

FAILED = "failed_at"


def with_place(name: str, function: Any) -> str:
    """`augment (experiments/mine.py, line 3, in flip)`, or the name alone of what is not theirs."""
    place = place_of(function)
    return f"{name} ({place})" if place else name


def check_method(method: Method) -> None:
    """Check what needs no model and no data.

    Raises:
        ValueError: optimizers are no Optax transformations (it names them all and says what was
            given), an update steps one that is not there, a module has a name of the model's, or
            two averages are asked for.
    """
    problems = [
        f"optimizer {name!r} is {_kind(tx)}"
        for name, (_, tx) in method.optimizers.items()
        if isinstance(tx, type) or not all(callable(getattr(tx, f, 0)) for f in ("init", "update"))
    ]
    if problems:
        raise ValueError(
            f"{'; '.join(problems)}; an Optax transformation is expected, such as optax.adam(1e-3)."
        )
    if taken := sorted({"backbone", "heads"} & method.modules.keys()):
        raise ValueError(f"a module of the method cannot be called {taken[0]!r}; a model has those")
    for i, update in enumerate(method.updates):
        if missing := [name for name in update.optimizers if name not in method.optimizers]:
            raise ValueError(
                f"update {i} steps the optimizers {missing}, the method has "
                f"{sorted(method.optimizers)}"
            )
    if method.swa is not None and (method.ema is not None or min(method.swa) < 1):
        raise ValueError(
            f"swa is (start, every), both at least 1, and stands alone; got swa={method.swa}, "
            f"ema={method.ema}"
        )


def _kind(tx: Any) -> str:
    if isinstance(tx, type):
        return f"the class {tx.__module__}.{tx.__qualname__}, not an instance of it"
    if callable(tx):
        name = getattr(tx, "__qualname__", type(tx).__name__)
        return f"the function {name}, uncalled, or a schedule"
    if tx is None or isinstance(tx, (bool, int, float, str)):
        return f"{tx!r}, a {type(tx).__name__}"
    return f"a {type(tx).__module__}.{type(tx).__qualname__}"


def loss_name(method: Method, number: int) -> str:
    """What the loss of an update is logged as."""
    return "loss" if len(method.updates) == 1 else f"loss_{number}"


def check_loss(method: Method, number: int, given: State, returned: Any) -> None:
    """Check what the loss of an update returned while it was traced.

    Args:
        given: the state that it was called with.

    Raises:
        ValueError: it is not (loss, (state, {metric: value})) with a float loss, a scalar or, for
            an update that weighs or combines several, a vector; the state has another form than
            before; or a metric has a name of ours.
    """
    update = method.updates[number]
    place = with_place(f"update {number}: its loss", update.loss)
    expected = f"{place} must return (loss, (state, {{metric: value}})), it returned"
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise ValueError(f"{expected} {describe(returned)}")
    loss, rest = returned
    pair = isinstance(rest, tuple | list) and not isinstance(rest, State)
    if not pair or len(rest) != 2 or not isinstance(rest[1], Mapping):
        inner = ", ".join(map(describe, rest)) if pair else ""
        raise ValueError(f"{expected} (loss, {f'({inner})' if inner else describe(rest)})")
    shape, dtype = jnp.shape(loss), jnp.result_type(loss)
    several = update.weigh is not None or update.combine is not None
    wanted = "a vector [tasks]" if several else "a scalar"
    if len(shape) != several or not jnp.issubdtype(dtype, jnp.floating):
        remedy = "; losses.task_losses makes one of heads or domains" if several else ""
        raise ValueError(f"{place} must be {wanted} of floats, got {dtype}{list(shape)}{remedy}")
    if lines := list(differing(given, rest[0])):
        raise ValueError(f"{place} must leave the form of the state as it is: {'; '.join(lines)}")
    for name, value in rest[1].items():
        if not isinstance(name, str) or name in ("step", FAILED, loss_name(method, number)):
            raise ValueError(f"{place} logs a metric called {name!r}; that name is taken")
        if not is_array(value) or jnp.shape(value) != ():
            raise ValueError(
                f"{place} logs {name!r}, which must be a scalar, got {describe(value)}"
            )


def check_rules(method: Method, live: Sequence[str]) -> None:
    """Check which updates make one gradient of several.

    Args:
        live: batch statistics that follow the data.

    Raises:
        ValueError: an update has two rules, or one that its loss or its model does not admit.
    """
    for i, update in enumerate(method.updates):
        rules = [name for name in ("weigh", "combine", "aggregate") if getattr(update, name)]
        if len(rules) > 1:
            raise ValueError(f"update {i} has {' and '.join(rules)}; at most one makes a gradient")
        if update.aggregate and not update.per_example:
            raise ValueError(
                f"update {i} aggregates gradients of single examples: its loss must be a mean over "
                "examples, per_example=True"
            )
        if update.aggregate and live:
            raise ValueError(
                f"update {i} aggregates gradients of single examples, but batch statistics that "
                f"follow the data couple them ({', '.join(live)}); freeze those layers"
            )


def check_rule(name: str, returned: Any, wanted: PyTree, logged: Mapping[str, jax.Array]) -> None:
    """Check what an update's rule returned while it was traced.

    Args:
        name: of the rule.
        returned: (weights or gradients, state, {metric: value}).
        wanted: what has the form of the first of them.
        logged: metrics of the loss.

    Raises:
        ValueError: it is another tuple, of another form, or a metric's name is taken.
    """
    if not isinstance(returned, tuple) or len(returned) != 3:
        raise ValueError(
            f"{name} must return what it makes, its state and metrics; it returned "
            f"{describe(returned)}"
        )
    made, _, metrics = returned
    if lines := list(differing(wanted, made, types=False)):
        what = "weights as many as losses" if name == "weigh" else "gradients of what it moves"
        raise ValueError(f"{name} must return {what}: {'; '.join(lines)}")
    for metric, value in metrics.items():
        if metric in logged or metric in ("step", "loss", FAILED) or jnp.shape(value) != ():
            raise ValueError(
                f"{name} logs {metric!r}, {describe(value)}: it must be a scalar under a name that "
                "the loss does not log"
            )


def differing(before: PyTree, after: PyTree, *, types: bool = True) -> Iterator[str]:
    """How two trees differ in their leaves' paths, shapes and `types`; at most five of them."""
    old, new = (
        {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(t)}
        for t in (before, after)
    )
    lines = [f"{path} is gone" for path in old if path not in new]
    lines += [f"{path or 'the whole'} is new" for path in new if path not in old]
    for path in (path for path in old if path in new):
        was, now = (_form(tree[path], types) for tree in (old, new))
        if was != now:
            lines.append(f"{path} was {was} and is {now}")
    if not lines and jax.tree.structure(before) != jax.tree.structure(after):
        lines = [f"it was {describe(before)} and is {describe(after)}"]
    yield from lines[:5]


def _form(leaf: Any, types: bool) -> str:
    return f"{leaf.dtype if types else ''}{list(leaf.shape)}" if hasattr(leaf, "dtype") else "none"
