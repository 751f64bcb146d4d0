"""Calling Optax: what is an optimizer at all, and what those need that look at the loss."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from jaxtl.plan import Params


def check_optimizers(optimizers: Mapping[str, tuple[Any, Any]]) -> None:
    """Nothing, if each is an Optax transformation.

    Raises:
        ValueError: some are not; it names them all and says what was given.
    """
    problems = [
        f"optimizer {name!r} is {_described(tx)}"
        for name, (_, tx) in optimizers.items()
        if isinstance(tx, type) or not all(callable(getattr(tx, f, 0)) for f in ("init", "update"))
    ]
    if problems:
        raise ValueError(
            f"{'; '.join(problems)}; an Optax transformation is expected, such as optax.adam(1e-3)."
        )


def _described(tx: Any) -> str:
    if isinstance(tx, type):
        return f"the class {tx.__module__}.{tx.__qualname__}, not an instance of it"
    if callable(tx):
        name = getattr(tx, "__qualname__", type(tx).__name__)
        return f"the function {name}, uncalled, or a schedule"
    if tx is None or isinstance(tx, (bool, int, float, str)):
        return f"{tx!r}, a {type(tx).__name__}"
    return f"a {type(tx).__module__}.{type(tx).__qualname__}"


def transform(
    name: str,
    tx: optax.GradientTransformation,
    grads: Params,
    opt_state: optax.OptState,
    params: Params,
    loss: jax.Array,
    slopes: Params,
    loss_fn: Callable[[Params], jax.Array] | None,
) -> tuple[Params, optax.OptState]:
    """(updates, optimizer state), the loss and its function for those that look at them.

    Args:
        name: of the optimizer.
        tx: gets `value`, `grad` and `value_fn` if it takes extra arguments.
        grads, params: of what it trains.
        loss: [] at `params`.
        slopes: its gradient; `grads` is that clipped.
        loss_fn: parameters like `params` -> [], on this batch, with this step's random numbers;
            None where the gradient is that of no function.

    Raises:
        ValueError: it needs yet other arguments, or a line search is given a part of its
            parameters only.
    """
    accumulates = isinstance(tx, optax.MultiSteps)  # which is of no type of transformation
    update = (tx if accumulates else optax.with_extra_args_support(tx)).update
    extra = {"value": loss, "grad": slopes}
    if loss_fn is not None:
        extra["value_fn"] = loss_fn
    try:
        return update(grads, opt_state, params, **extra)
    except ValueError as error:
        if "MaskedNode" not in str(error):
            raise
        raise ValueError(
            f"optimizer {name!r} searches along a line inside optax.masked or a partition, which "
            "show it a part of the parameters; give it a group of its own in the method's "
            "`optimizers`."
        ) from error
    except TypeError as error:
        if "required keyword-only argument" not in str(error):
            raise
        raise ValueError(
            f"optimizer {name!r} needs arguments that a training step has not: {error}; it passes "
            f"{', '.join(extra)}."
        ) from error
