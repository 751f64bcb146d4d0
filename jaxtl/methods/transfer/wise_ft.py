"""WiSE-FT: between the parameters before and after a fine-tuning, in two stages.

data = {"domains": domains, "batch_size": 64}
fine = Stage("fine", model, transfer.anchored(transfer.full(tx)), num_steps=1_000, **data)
wise = Stage("wise", model, transfer.wise_ft(0.5), num_steps=0, **data)
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.methods.transfer.soups import interpolate
from jaxtl.plan import Columns, Method, Model, Params, PyTree, StageShape, State, Statistics


def anchored(method: Method) -> Method:
    """The same method, which hands the parameters that it started from on to the next stage.

    Raises:
        ValueError: the method has a state or a pass over the data of its own.
    """
    if method.state is not None or method.prepare is not None:
        raise ValueError("anchored: the method has a state or a pass over the data of its own")

    def starting_point(params: Params) -> PyTree:
        return {"start": {name: params[name] for name in params.keys() - method.modules.keys()}}

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        return starting_point(params)

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        # Set anew: an earlier anchored stage may have handed on the parameters that it began with.
        return params, state._replace(method=starting_point(params))

    return dataclasses.replace(method, state=start, remembers=True, prepare=prepare)


def wise_ft(alpha: float = 0.5) -> Method:
    """The parameters at alpha between the start (0) and the end (1) of the stage before.

    That stage is `anchored`; this one has no steps, and names the heads of its domains. A head that
    was fresh there is interpolated with its random start: fit it in a stage before.

    Args:
        alpha: the paper's mixing coefficient, in [0, 1].

    Raises:
        ValueError: when the stage starts, the one before did not keep its start.

    Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022. arXiv:2109.01903, Eq. 1.
    Batch statistics stay those of the end: `refresh_statistics` may follow.
    """

    def blank(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        return {"start": jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)}

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        start = state.method["start"]
        if any(np.isnan(leaf).all() for leaf in jax.tree.leaves(start)):
            raise ValueError(
                "wise_ft interpolates from the start of the stage before, which was not kept: "
                "give that stage transfer.anchored(method), with the same model"
            )
        return interpolate(start, params, alpha), state

    return Method(state=blank, remembers=True, prepare=prepare, solves=(".*",))
