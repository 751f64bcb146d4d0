"""Parameter-efficient adapters: functions from a model to a model with few more parameters."""

from jaxtl.models.adapter import apply_stacked, unmerge
from jaxtl.models.adapters.adalora import adalora, orthogonality
from jaxtl.models.adapters.bottleneck import houlsby, parallel
from jaxtl.models.adapters.dora import dora
from jaxtl.models.adapters.ia3 import ia3
from jaxtl.models.adapters.lora import lora, rslora
from jaxtl.models.adapters.pissa import pissa
from jaxtl.models.adapters.prefix import prefix
from jaxtl.models.adapters.prompt import deep_visual_prompt, prompt, visual_prompt
from jaxtl.models.adapters.vera import vera

__all__ = [
    "adalora",
    "apply_stacked",
    "deep_visual_prompt",
    "dora",
    "houlsby",
    "ia3",
    "lora",
    "orthogonality",
    "parallel",
    "pissa",
    "prefix",
    "prompt",
    "rslora",
    "unmerge",
    "vera",
    "visual_prompt",
]
