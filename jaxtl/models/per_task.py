"""An adapter for each task on one backbone, such as LoRA for several tasks."""

import dataclasses
from collections.abc import Callable

from jaxtl.form import checked
from jaxtl.models.adapter import Adapter
from jaxtl.models.copies import check_tasks
from jaxtl.paths import unknown
from jaxtl.plan import Model, Params


@checked
def per_task(model: Model, adapt: Callable[..., Model], name: str = "adapter") -> Model:
    """The model with an adapter for each head, which changes that head's features alone.

        per_task(model, functools.partial(adapters.lora, targets=[...], rank=4), "lora")

    The blocks are called for each task from the first adapted one on. The backbone is shared: train
    `<name>_for_.*` and `heads/.*`, and it stays as it is. `of_task` gives the model of one task,
    which can be merged and exported as any other.

    Args:
        adapt: (model, name=...) -> adapted model, one of `models.adapters`.
        name: the parameters of a head are `<name>_for_<head>/...`.

    Raises:
        ValueError: the model has no head, or `adapt` puts on no adapter.
    """
    check_tasks(model)
    for task in model.heads:
        adapted = adapt(model, name=f"{name}_for_{task}")
        if len(getattr(adapted, "adapters", ())) != len(model.adapters) + 1:
            raise ValueError("`adapt` puts one adapter on a model, as those of models.adapters do.")
        *others, last = adapted.adapters
        of_one = dataclasses.replace(last, task=task)
        model = dataclasses.replace(adapted, adapters=(*others, of_one))
    return model


def of_task(model: Model, params: Params, task: str) -> tuple[Model, Params]:
    """The model of one task alone, and its parameters.

    Adapters of the task become adapters of the model, in the same order; what other tasks own goes.

    Raises:
        ValueError: the model has no such head.
    """
    if task not in model.heads:
        raise ValueError(unknown("head", task, model.heads))

    def alone(adapter: Adapter) -> Adapter:
        return adapter if adapter.task is None else dataclasses.replace(adapter, task=None)

    dropped = [adapter for adapter in model.adapters if adapter.task not in (None, task)]
    chain = tuple(alone(adapter) for adapter in model.adapters if adapter not in dropped)
    remaining = {
        name: tree for name, tree in params.items() if name not in {a.name for a in dropped}
    }
    if "heads" in params:
        remaining["heads"] = {task: params["heads"][task]}
    heads = {task: model.heads[task]}
    return dataclasses.replace(model, heads=heads, adapters=chain), remaining
