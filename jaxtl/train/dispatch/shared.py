"""Compiled calls that stages share: what computes the same on the same shapes is compiled once.

In an experiment whose arms differ in their data or in the weights that they start from, most stages
have equal programs.
"""

import collections
from collections.abc import Callable, Hashable, Sequence

import jax

from jaxtl.plan import PyTree
from jaxtl.train.mesh import current_mesh
from jaxtl.train.resolve.traced import Traced

MOST = 64
"""Calls that are kept, those that were asked for last."""
_compiled: collections.OrderedDict[Hashable, jax.stages.Compiled] = collections.OrderedDict()


def compiled(
    made_of: Sequence[Traced], how: Hashable, dispatch: Callable, *args: PyTree
) -> jax.stages.Compiled:
    """A dispatch, compiled for its arguments, or an equal one that was.

    Args:
        made_of: the programs that it calls; one that calls the host, or cannot be looked into, is
            compiled by itself.
        how: what else decides what it computes.
        dispatch: jitted.
    """
    if any(part.calls_host or part.fingerprint.opaque for part in made_of):
        return dispatch.lower(*args).compile()
    leaves, structure = jax.tree.flatten(args)
    places = [(jax.typeof(leaf).str_short(), getattr(leaf, "sharding", None)) for leaf in leaves]
    results = [jax.tree.structure(part.results) for part in made_of]
    digests = [part.fingerprint.digest for part in made_of]
    key = (current_mesh(), how, structure, *digests, *results, *places)
    if key not in _compiled:
        _compiled[key] = dispatch.lower(*args).compile()
    _compiled.move_to_end(key)
    if len(_compiled) > MOST:
        _compiled.popitem(last=False)
    return _compiled[key]
