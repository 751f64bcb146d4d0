"""IA3: keys, values and the dense network's activations, each multiplied by a learned vector.

Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
Learning", 2022. arXiv:2205.05638, Section 3.3.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxtl.models.adapters.family import Family, Kernel, Leaves, Weight
from jaxtl.models.adapters.kernels import on_kernels
from jaxtl.paths import matches
from jaxtl.plan import Model


def ia3(
    model: Model,
    outputs: Sequence[str] = (r"backbone/.*/(key|value)/kernel",),
    inputs: Sequence[str] = (r"backbone/.*/mlp/down/kernel",),
    name: str = "ia3",
) -> Model:
    """Multiplies what some layers put out and what others read.

    The vectors start as 1, so that the model starts as it was: columns parameters for a kernel of
    `outputs`, whose bias is multiplied too, and rows for one of `inputs`, `<name>/<layer>/{outputs,
    inputs}`. In weight space, always.

    Args:
        outputs: path patterns of kernels whose layers' outputs are multiplied: keys and values.
        inputs: of dense kernels whose layers' inputs are multiplied: the activations between the
            two layers of the dense network. May be ().
    """
    outputs, inputs = tuple(outputs), tuple(inputs)

    def start(kernel: Kernel, matrix: jax.Array, key: Callable) -> Leaves:
        sides = {"outputs": (outputs, kernel.columns), "inputs": (inputs, kernel.rows)}
        return {
            leaf: jnp.ones(size, matrix.dtype)
            for leaf, (patterns, size) in sides.items()
            if matches(patterns, kernel.path)
        }

    def unweigh(weight: Weight, leaves: Leaves) -> Weight:
        return _scale(weight, {leaf: 1 / value for leaf, value in leaves.items()})

    def columns(leaves: Leaves, size: int) -> int:
        return len(leaves["outputs"]) if "outputs" in leaves else size // len(leaves["inputs"])

    def problem(kernel: Kernel) -> str | None:
        if matches(inputs, kernel.path) and not kernel.dense:
            return "the inputs of a convolution are not multiplied; name it in `outputs`"
        return None

    family = Family(start, columns, _scale, unweigh, problem=problem)
    return on_kernels(model, (*outputs, *inputs), family, name)


def _scale(weight: Weight, leaves: Leaves) -> Weight:
    scaled = dict(weight)
    if "inputs" in leaves:
        scaled["kernel"] = scaled["kernel"] * leaves["inputs"][:, None]
    if "outputs" in leaves:
        scaled["kernel"] = scaled["kernel"] * leaves["outputs"][None]
        scaled |= {"bias": scaled["bias"] * leaves["outputs"]} if "bias" in scaled else {}
    return scaled
