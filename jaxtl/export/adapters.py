"""The adapters of a trained model as a folder that PEFT reads."""

from pathlib import Path
from typing import Any

from jaxtl.export.predictor import Predictor
from jaxtl.models import of_task
from jaxtl.plan import Weights
from jaxtl.pretrained import PeftWeights, save_peft


def write_adapters(predictor: Predictor, folder: Path) -> dict[str, Any]:
    """Adapters, the head and what else has changed since the published weights.

    The head is the model's only one, or the one that the published weights have too.

    Raises:
        ValueError: the arm started from no published weights, or as `save_peft`.
    """
    base: Weights | None = predictor.stages[0].weights
    adapter = base.adapter if isinstance(base, PeftWeights) else None
    base = base.base if isinstance(base, PeftWeights) else base
    schemes = getattr(adapter or base, "schemes", None)
    if schemes is None:
        raise ValueError(
            f"--format=peft: stage {predictor.stages[0].name!r} starts from no published weights, "
            "whose names the adapter would have; --format=safetensors merges it."
        )
    heads = list(predictor.model.heads)
    head = heads[0] if len(heads) == 1 else getattr(adapter, "head", None) or base.head
    model, params = predictor.model, predictor.params
    if any(adapter.task for adapter in model.adapters):
        model, params = of_task(model, params, head)
    save_peft(folder, model, params, schemes, head=head, base=base)
    return {"names": base.name, "head": head}


def loading_adapters(folder: Path) -> str:
    """Python that loads the folder."""
    return (
        "from peft import PeftModel\n"
        f"model = PeftModel.from_pretrained(base, {str(folder)!r})  # base: the published network"
    )
