"""Programs of a stage that are traced once, whoever asks for them."""

import dataclasses
import functools
from collections.abc import Callable, Hashable

import jax
from jax.extend import core as jex

from jaxtl.fingerprint import Fingerprint, of_jaxpr
from jaxtl.models.outputs import Predict, batch_outputs
from jaxtl.models.programs import alone, form_of
from jaxtl.plan import PyTree
from jaxtl.train.resolve.stage import Setup


@dataclasses.dataclass(frozen=True)
class Traced:
    """A function as it was traced, to be called in other programs without its Python code.

    Attributes:
        closed: the program, from the leaves of the arguments to those of the results.
        results: what it returns, abstract.
        names: of the entries in arguments and results.
    """

    closed: jex.ClosedJaxpr
    results: PyTree
    names: tuple[str, ...]

    def __call__(self, *args: PyTree) -> PyTree:
        leaves = jex.jaxpr_as_fun(self.closed)(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(self.results), leaves)

    @functools.cached_property
    def fingerprint(self) -> Fingerprint:
        """Of its numbers; names of entries apart."""
        return of_jaxpr(self.closed)

    @functools.cached_property
    def calls_host(self) -> bool:
        """Whether Python code runs each time that it does."""
        return bool(self.closed.effects) or _calls_back(self.closed.jaxpr)


def _calls_back(jaxpr: jex.Jaxpr) -> bool:
    return any(
        "callback" in equation.primitive.name
        or any(map(_calls_back, jex.jaxprs_in_params(equation.params)))
        for equation in jaxpr.eqns
    )


def trace(setup: Setup, name: Hashable, function: Callable, *args: PyTree) -> Traced:
    """The function as it was first traced for this setup on arguments of these shapes.

    Args:
        name: what tells it from the other functions of the setup.
        args: arrays, tracers or shapes.

    Raises:
        whatever the function raises.
    """
    leaves, structure = jax.tree.flatten(args)
    avals = [jax.typeof(leaf) for leaf in leaves]
    key = (name, structure, tuple((aval.shape, aval.dtype) for aval in avals))
    if key not in setup.traces:
        given = structure.unflatten(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals)
        closed, results = jax.make_jaxpr(function, return_shape=True)(*given)
        paths = [path for path, _ in jax.tree.leaves_with_path((args, results))]
        setup.traces[key] = Traced(closed, results, tuple(map(jax.tree_util.keystr, paths)))
    return setup.traces[key]


def traced_outputs(setup: Setup, predict: Predict | None = None) -> jax.stages.Traced:
    """(params, state, inputs) -> what the stage's model says of examples when it does not train.

    Traced once for all stages whose models compute the same.

    Args:
        predict: instead of `model.apply`.
    """
    args = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
        (setup.params, setup.state, setup.inputs),
    )
    with alone():
        return batch_outputs.trace(form_of(setup.model, predict, None), *args)
