"""What a loss must return, checked while it is traced."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxtl.blame import place_of
from jaxtl.form import describe, is_array
from jaxtl.plan import Method, PyTree, State

FAILED = "failed_at"


def loss_name(method: Method, number: int) -> str:
    """What the loss of an update is logged as."""
    return "loss" if len(method.updates) == 1 else f"loss_{number}"


def check_loss(method: Method, number: int, given: State, returned: Any) -> None:
    """Check what the loss of an update returned while it was traced.

    Args:
        given: the state that it was called with.

    Raises:
        ValueError: it is not (loss, (state, {metric: value})) with a float loss, a scalar or, for
            an update that combines gradients, a vector; the state has another form than before; or
            a metric has a name of ours.
    """
    update = method.updates[number]
    place = f"update {number}: its loss"
    place += f" ({written})" if (written := place_of(update.loss)) else ""
    expected = f"{place} must return (loss, (state, {{metric: value}})), it returned"
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise ValueError(f"{expected} {describe(returned)}")
    loss, rest = returned
    if not isinstance(rest, tuple | list) or len(rest) != 2 or not isinstance(rest[1], Mapping):
        inner = ", ".join(map(describe, rest)) if isinstance(rest, tuple | list) else ""
        raise ValueError(f"{expected} (loss, {f'({inner})' if inner else describe(rest)})")
    shape, dtype = jnp.shape(loss), jnp.result_type(loss)
    wanted = "a scalar" if update.combine is None else "a vector [tasks]"
    if len(shape) != (update.combine is not None) or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{place} must be {wanted} of floats, got {dtype}{list(shape)}")
    if lines := list(differing(given, rest[0])):
        raise ValueError(f"{place} must leave the form of the state as it is: {'; '.join(lines)}")
    for name, value in rest[1].items():
        if not isinstance(name, str) or name in ("step", FAILED, loss_name(method, number)):
            raise ValueError(f"{place} logs a metric called {name!r}; that name is taken")
        if not is_array(value) or jnp.shape(value) != ():
            raise ValueError(
                f"{place} logs {name!r}, which must be a scalar, got {describe(value)}"
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
