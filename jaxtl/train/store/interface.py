"""What a stage's model reads and what its outputs mean, in words that need no data to be read.

It stands in stage.json, so that the model can be used where the training data are not.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxtl.plan import PyTree
from jaxtl.train.resolve.stage import Setup


def interface(setup: Setup) -> dict[str, Any]:
    """JSON values: the model's inputs, and the names of the classes that the stage's heads tell.

    Returns:
        {"inputs": pytree of {"shape": of one example, "dtype": uint8 where the data are},
        "classes": {head: names}, "shape": of the stage}, for its first domain, its augmentation
        done.
    """
    classes = {}
    for domain in setup.stage.domains:
        for head, column in domain.heads.items() if domain.episodes is None else ():
            names = domain.dataset.class_names(column)
            if setup.model.heads[head].integer and len(names) > len(classes.get(head, ())):
                classes[head] = list(names)
    shape = setup.shape._asdict()
    del shape["inputs"]  # they are said beside it
    del shape["parameters"]  # the model says them, in `initialise`
    return {"inputs": describe(_stored(setup)), "classes": classes, "shape": shape}


def _stored(setup: Setup) -> PyTree:
    """The model's abstract inputs [1, ...] before images become floats."""
    stored = setup.stage.domains[0].dataset.table().inputs
    if jax.tree.structure(stored) != jax.tree.structure(setup.inputs):
        return setup.inputs  # an augmentation made them

    def abstract(leaf, model_input):
        dtype = np.uint8 if leaf.dtype == np.uint8 else model_input.dtype
        return jax.ShapeDtypeStruct(model_input.shape, dtype)

    return jax.tree.map(abstract, stored, setup.inputs)


def describe(inputs: PyTree) -> Any:
    """JSON values of the shape of one example and its type, `object` for texts."""
    if isinstance(inputs, Mapping):
        return {name: describe(tree) for name, tree in inputs.items()}
    if isinstance(inputs, list | tuple):
        return [describe(tree) for tree in inputs]
    dtype = "object" if inputs.dtype.kind in "OUS" else str(inputs.dtype)
    return {"shape": list(inputs.shape[1:]), "dtype": dtype}


def abstract_inputs(described: Any) -> PyTree:
    """The abstract inputs [1, ...] that `interface` described; sequences come back as tuples."""
    if isinstance(described, list):
        return tuple(map(abstract_inputs, described))
    if described.keys() == {"shape", "dtype"} and isinstance(described["dtype"], str):
        return jax.ShapeDtypeStruct((1, *described["shape"]), described["dtype"])
    return {name: abstract_inputs(tree) for name, tree in described.items()}
