"""Published weights put into parameters, for a training loop of one's own."""

import jax.numpy as jnp

from jaxtl.form import Patterns, checked
from jaxtl.models.adapters import solve
from jaxtl.paths import flatten, nest, select
from jaxtl.plan import Model, Params, Statistics, Weights
from jaxtl.plan.reading import Wanted


@checked
def load(
    weights: Weights,
    model: Model,
    params: Params,
    statistics: Statistics,
    *,
    fresh: Patterns = (),
) -> tuple[Params, Statistics, str]:
    """A model's parameters and batch statistics with the published values; a stage does it itself.

    What adapters compute from the kernels is computed from those that were loaded.

    Args:
        weights: such as `pretrained.weights(file, pretrained.RESNET)`.
        params, statistics: as `model.init` gives them.
        fresh: path patterns of the parameters that stay as they are, with the statistics of their
            layers: new heads, adapters.

    Returns:
        (params, statistics, what was loaded, reshaped and left out, in words).

    Raises:
        ValueError: a pattern matches nothing, or the file does not fit, all of which is listed.
    """
    paths, running = flatten(params), flatten(statistics)
    same = select(fresh, paths)
    layers = {path.rsplit("/", 1)[0] for path in same}
    same |= {path for path in running if path.rsplit("/", 1)[0] in layers}
    leaves = paths | running
    wanted = {path: leaf for path, leaf in leaves.items() if path not in same}
    published, report = weights.read(Wanted(wanted, others=same))
    leaves |= {path: jnp.asarray(published[path], leaves[path].dtype) for path in published}
    params, statistics = (nest({path: leaves[path] for path in tree}) for tree in (paths, running))
    return solve(model, params), statistics, report
