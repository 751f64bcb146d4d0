"""Parameter-efficient adapters: functions from a model to a model with few more parameters.

Arguments that they share:

    model    any of `jaxtl.models`; its parameters keep their paths, so published weights still load
             with `fresh=("lora/.*", ...)`.
    targets  path patterns: of kernels, such as `backbone/.*/(query|value)/kernel`, or of layers,
             without a parameter's name.
    rank     of the matrix that is added to a kernel.
    alpha    that matrix is multiplied by alpha / rank.
    dropout  share of the inputs of what is added beside a layer that is dropped in training.
    name     where the new parameters live; adapters on one model need different names. `<name>/.*`
             is what a method trains: what must not train, such as random matrices, never does.

A pattern that matches nothing is a ValueError from `init`, and so is a kernel whose matrix is
smaller than the rank, or whose inputs are to be dropped where it is changed in weight space.

`model.merge(params)` folds the last adapter into the kernels, and is a ValueError that says why
where no kernel computes the same: prompts, prefixes, bottlenecks. What starts from loaded weights
(PiSSA, DoRA) is computed when a stage has loaded them, and is the adapter's field `after_loading`.
"""

from jaxtl.models.adapter import apply_stacked, solve, unmerge
from jaxtl.models.adapters.adalora import adalora, orthogonality
from jaxtl.models.adapters.bottleneck import houlsby, parallel
from jaxtl.models.adapters.dora import dora
from jaxtl.models.adapters.ia3 import ia3
from jaxtl.models.adapters.lora import lora, rslora
from jaxtl.models.adapters.pissa import pissa
from jaxtl.models.adapters.prefix import prefix
from jaxtl.models.adapters.prompt import deep_visual_prompt, prompt, visual_prompt
from jaxtl.models.adapters.vera import vera
