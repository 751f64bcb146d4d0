"""Many adapters on one base, evaluated together."""

from typing import Any

import jax

from jaxtl import paths
from jaxtl.plan import Model, Params, PyTree, Statistics


def apply_stacked(
    model: Model, params: Params, statistics: Statistics, stacked: Params, inputs: PyTree, **options
) -> dict[str, Any]:
    """The outputs of an adapted model for each of K adapters, in one program.

    The base has no axis of adapters: beside a dense layer, inputs @ W is one product for all of
    them, and only the low-rank part is theirs. An adapter in weight space needs K kernels.

    Args:
        model: an adapted model.
        params: the base's; what `stacked` holds may be missing.
        statistics: its batch statistics.
        stacked: the adapters', leaves [K, ...], such as {"lora": ...}, and whatever else differs
            from one to the next, such as {"heads": ...}.
        inputs: pytree of [n, ...], the same for all.
        **options: as `model.apply` takes them.

    Returns:
        {"features": [K, n, features], "logits": {head: [K, n, size]}}.
    """
    base = paths.flatten(params)

    def apply(adapter: Params) -> dict[str, Any]:
        params = paths.nest({**base, **paths.flatten(adapter)})
        return model.apply(params, statistics, inputs, **options)[0]

    return jax.vmap(apply)(stacked)
