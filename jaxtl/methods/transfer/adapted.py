"""What a method needs to train an adapter: values from loaded weights, and two learning rates."""

import dataclasses

import optax

from jaxtl.methods.transfer.fine_tuning import grouped
from jaxtl.models.adapters import AfterLoading
from jaxtl.plan import Columns, Method, Model, Params, State


def prepared(method: Method, after_loading: AfterLoading) -> Method:
    """A method that first computes what its model's adapter takes from the loaded weights.

        tuned, components = adapters.pissa(model, targets)
        method = transfer.prepared(transfer.grouped({...}), components)

    Args:
        method: any; its own `prepare` runs afterwards.
        after_loading: what the adapter returned.

    Raises:
        ValueError: the method prepares again every few steps, when the adapter would be reset.
    """
    if method.prepare_every:
        raise ValueError(
            f"the method prepares again every {method.prepare_every} steps, which would reset what "
            "the adapter has learned; prepare in a stage without it."
        )

    def prepare(
        model: Model, params: Params, state: State, domains: list[Columns]
    ) -> tuple[Params, State]:
        params = after_loading.compute(params)
        if method.prepare is None:
            return params, state
        return method.prepare(model, params, state, domains)

    solves = (*method.solves, *after_loading.solves)
    return dataclasses.replace(method, prepare=prepare, solves=solves)


def lora_plus(
    tx: optax.GradientTransformation,
    *,
    ratio: float = 16.0,
    name: str = "lora",
    others: tuple[str, ...] = ("heads/.*",),
) -> Method:
    """LoRA whose B learns `ratio` times as fast as its A; Section 4.

    Args:
        tx: optax transformation of A and the others. The updates of B are those of the same
            transformation times the ratio: of its learning rate, for whatever is linear in it.
        ratio: of the learning rates; the paper's advice is 16.
        name: the adapter's.
        others: path patterns of what else trains, like A.

    Hayou et al., "LoRA+: Efficient Low Rank Adaptation of Large Models", 2024. arXiv:2402.12354.
    """
    faster = optax.chain(tx, optax.scale(ratio))
    return grouped({"b": ((f"{name}/.*/b",), faster), "all": ((f"{name}/.*", *others), tx)})
