"""Flax NNX modules as a backbone of one block."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import flax
import jax
import jax.numpy as jnp

from jaxtl.models.blocks import Block, identity
from jaxtl.models.foreign import Foreign, Leaves, joined
from jaxtl.models.from_linen import Output, selector
from jaxtl.models.model import from_blocks
from jaxtl.paths import key, unknown
from jaxtl.plan import Head, Model, PyTree

if TYPE_CHECKING:
    from flax import nnx  # its import takes half a second


def from_nnx(
    module: "nnx.Module | Callable[[nnx.Rngs], nnx.Module]",
    heads: Mapping[str, Head],
    *,
    name: str = "body",
    call: "Callable[[nnx.Module, PyTree, bool], PyTree] | None" = None,
    output: Output = None,
    without: str | None = None,
    before: Callable[[PyTree], PyTree] = identity,
) -> Model:
    """Any Flax NNX module as a backbone of one block: inputs [n, ...] -> features [n, ...].

    Its `nnx.Param`s are found under `backbone/<name>/`, such as `backbone/body/layers/0/kernel`.
    `nnx.BatchStat` and all other variables but random streams are batch statistics under the same
    paths. Dropout draws from the key of the step. Arrays that are no variables are constants, the
    same for all seeds. The module given is never changed.

    Args:
        module: a class that takes `rngs`, or a function `lambda rngs: Network(width, rngs=rngs)`,
            which draws other initial values for each seed; or a module. The weights of a module, as
            they are now, are the initial values for every seed, and of what a stage names as
            `fresh`, and may be frozen: for weights that somebody trained.
        name: of the block.
        call: (module, inputs, train) -> outputs, where the default does not fit: `module(inputs)`
            after `module.train()` or `module.eval()`, told about training by whichever of `train`,
            `training`, `deterministic`, `use_running_average` and `rngs` its `__call__` takes.
        output: which of several outputs the features are, as in `from_linen`.
        without: path in the module of one that is left out, such as its own classifier `head`: it
            has no parameters and hands its inputs on, which are the features then.

    Raises:
        ValueError: this is neither a module nor makes one, or has no module at `without`; from
            `init`, it cannot be called so, or there is no such output.
    """
    from flax import nnx

    where = f"block {name!r}"
    if isinstance(module, nnx.Module):
        copied = nnx.clone(module)  # so that training it later changes nothing
        source = _Network(where, lambda rngs: copied, True, call, without)
        source.form  # noqa: B018, checks it now
    else:
        source = _Network(where, _builder(where, module), False, call, without)
    return from_blocks([Block(name, Foreign(source), selector(name, output))], heads, before=before)


def _builder(where: str, make: Any) -> "Callable[[nnx.Rngs], nnx.Module]":
    """rngs -> module.

    Raises:
        ValueError: from the call or at once, it makes none.
    """
    from flax import nnx

    expected = "an nnx.Module, a class of such, or a function lambda rngs: ... that makes one"
    if isinstance(make, flax.linen.Module):
        title = type(make).__name__
        raise ValueError(f"{where}: {title} is a linen module, which models.from_linen takes.")
    if not callable(make):
        raise ValueError(f"{where}: expected {expected}; got a {type(make).__name__}.")
    title = getattr(make, "__name__", type(make).__name__)
    # A class of NNX hides the arguments of its `__init__`, which has `self` before them.
    signature = inspect.signature(make.__init__ if isinstance(make, type) else make)
    options = ("rngs",) if "rngs" in signature.parameters else ()
    given = [None] * (isinstance(make, type) + (not options))
    try:
        signature.bind(*given, **dict.fromkeys(options))
    except TypeError as error:
        raise ValueError(
            f"{where}: {title} is called with `rngs` alone: {error}; give a function, such as "
            f"lambda rngs: {title}(..., rngs=rngs)."
        ) from None

    def build(rngs: nnx.Rngs) -> nnx.Module:
        module = make(rngs=rngs) if options else make(rngs)
        if not isinstance(module, nnx.Module):
            raise ValueError(f"{where}: expected {expected}; {title} makes {type(module).__name__}")
        return module

    return build


class _Form(NamedTuple):
    """What is the same for all values of a module's variables.

    Attributes:
        graph: the module without its arrays.
        params, statistics: {path: (place in the module, variable)}.
        streams: [(place, variable)] of the random streams.
        constants: [(place, array)].
        kernel_axes: as in `Source`.
    """

    graph: Any
    params: Mapping[str, tuple[tuple, Any]]
    statistics: Mapping[str, tuple[tuple, Any]]
    streams: list[tuple[tuple, Any]]
    constants: list[tuple[tuple, jax.Array]]
    kernel_axes: Mapping[str, tuple[int | None, int]]


class _Network:
    """The source of an NNX module."""

    def __init__(
        self,
        name: str,
        build: Callable,
        is_trained: bool,
        call: Callable | None,
        without: str | None,
    ):
        self.name, self._build, self.is_trained = name, build, is_trained
        self._call, self._without = call, without

    def make(self, rngs: "nnx.Rngs | None") -> "nnx.Module":
        """The module, without what is left out."""
        from flax import nnx

        class Identity(nnx.Module):
            def __call__(self, inputs: PyTree, *others: Any, **options: Any) -> PyTree:
                return inputs

        module = self._build(rngs)
        if self._without is None:
            return module
        modules = {_path(place): place for place, _ in nnx.iter_modules(module) if place}
        if self._without not in modules:
            reason = unknown("module", self._without, modules)
            raise ValueError(f"{self.name}, `without`: {reason}")
        *above, last = modules[self._without]
        parent: Any = module
        for step in above:
            parent = _child(parent, step)
        if isinstance(last, str) and hasattr(parent, last):
            setattr(parent, last, Identity())
        else:
            parent[last] = Identity()
        return module

    @functools.cached_property
    def form(self) -> _Form:
        from flax import nnx

        if self.is_trained:
            return self._form_of(self.make(None))
        forms = []

        def trace(rng: jax.Array) -> Any:
            graph, state = nnx.split(module := self.make(nnx.Rngs(rng)))
            forms.append((graph, _kernel_axes(module)))
            return state

        state = jax.eval_shape(trace, jax.random.key(0))
        graph, kernel_axes = forms[0]
        if _holds_tracers(graph):  # arrays that are no variables: their values are needed
            with jax.ensure_compile_time_eval():
                return self._form_of(self.make(nnx.Rngs(0)))
        return self._sorted(graph, state, kernel_axes)

    def _form_of(self, module: "nnx.Module") -> _Form:
        from flax import nnx

        return self._sorted(*nnx.split(module), _kernel_axes(module))

    def _sorted(self, graph: Any, state: Any, kernel_axes: Mapping[str, Any]) -> _Form:
        from flax import nnx

        form = _Form(graph, {}, {}, [], [], kernel_axes)
        for place, leaf in nnx.to_flat_state(state):
            if not isinstance(leaf, nnx.Variable):
                form.constants.append((place, leaf))
            elif isinstance(leaf, nnx.RngState):
                form.streams.append((place, leaf))
            else:
                leaves = form.params if isinstance(leaf, nnx.Param) else form.statistics
                leaves[joined(place, form.params | form.statistics, self.name)] = (place, leaf)
        return form

    @property
    def kernel_axes(self) -> Mapping[str, tuple[int | None, int]]:
        return self.form.kernel_axes

    def start(self, rng: jax.Array, inputs: PyTree) -> tuple[Leaves, Leaves]:
        from flax import nnx

        form = self.form
        values = form.params | form.statistics
        if self.is_trained:
            values = {path: variable[...] for path, (_, variable) in values.items()}
        else:
            made = dict(nnx.to_flat_state(nnx.state(self.make(nnx.Rngs(rng)))))
            values = {path: made[place][...] for path, (place, _) in values.items()}
        return {p: values[p] for p in form.params}, {p: values[p] for p in form.statistics}

    def run(
        self,
        params: Leaves,
        statistics: Leaves,
        inputs: PyTree,
        *,
        rng: jax.Array | None,
        train: bool,
        live: Callable[[str], bool],
    ) -> tuple[PyTree, Leaves]:
        from flax import nnx

        form, values = self.form, {**params, **statistics}
        variables = form.params | form.statistics
        leaves = [(place, v.replace(values[path])) for path, (place, v) in variables.items()]
        leaves += list(_streams(form.streams, rng)) + form.constants
        module = nnx.merge(form.graph, nnx.from_flat_state(leaves))
        if train:
            module.train()
            _keep_constant(module, live)
        else:
            module.eval()
        counts = _counts(module)
        outputs = self._outputs(module, inputs, rng, train)
        pairs = zip(counts, _counts(module), strict=True)
        if train and rng is None and any(before is not after for before, after in pairs):
            raise flax.errors.InvalidRngError(
                f"{self.name} draws random numbers in training and was given no rng."
            )
        after = dict(nnx.to_flat_state(nnx.state(module)))
        return outputs, {path: after[form.statistics[path][0]][...] for path in statistics}

    def _outputs(
        self, module: "nnx.Module", inputs: PyTree, rng: jax.Array | None, train: bool
    ) -> PyTree:
        from flax import nnx

        if self._call is not None:
            return self._call(module, inputs, train)
        taken = inspect.signature(type(module).__call__)
        flags = {"train": train, "training": train}
        flags |= {"deterministic": not train, "use_running_average": not train}
        flags["rngs"] = None if rng is None else nnx.Rngs(key(rng, "rngs"))
        flags = {flag: value for flag, value in flags.items() if flag in taken.parameters}
        try:
            taken.bind(module, inputs, **flags)
        except TypeError as error:
            raise ValueError(
                f"{self.name}: {type(module).__name__}.__call__ is given inputs"
                f"{''.join(f', {flag}' for flag in flags)}: {error}; say how to call it with "
                "`call=lambda module, inputs, train: module(...)`."
            ) from None
        return module(inputs, **flags)


def _streams(streams: list[tuple[tuple, Any]], rng: jax.Array | None) -> Iterator[tuple]:
    """Random streams at their start; each has its place's own key."""
    from flax import nnx

    rng = jax.random.key(0) if rng is None else rng  # read by what is never drawn
    for place, variable in streams:
        shape = variable.get_raw_value().shape  # may be abstract
        if isinstance(variable, nnx.RngKey):
            stream = key(rng, _path(place))
            yield place, variable.replace(jax.random.split(stream, shape) if shape else stream)
        else:
            yield place, variable.replace(jnp.zeros(shape, jnp.uint32))


def _counts(module: "nnx.Module") -> list[jax.Array]:
    """How often each stream was drawn from; another object after a draw."""
    from flax import nnx

    return [v[...] for _, v in nnx.to_flat_state(nnx.state(module, nnx.RngCount))]


def _keep_constant(module: "nnx.Module", live: Callable[[str], bool]) -> None:
    """Normalisation whose statistics do not follow the data uses them as they are."""
    from flax import nnx

    for place, layer in nnx.iter_modules(module):
        if isinstance(layer, nnx.BatchNorm):
            paths = (_path((*place, statistic)) for statistic in ("mean", "var"))
            layer.use_running_average = not any(map(live, paths))


def _kernel_axes(module: "nnx.Module") -> dict[str, tuple[int | None, int]]:
    from flax import nnx

    axes: dict[str, tuple[int | None, int]] = {}
    for place, layer in nnx.iter_modules(module):
        if isinstance(layer, nnx.Linear):
            axes[_path(place)] = (1, 2)
        elif isinstance(layer, nnx.LinearGeneral):
            inside, outside = len(layer.in_features), len(layer.out_features)
            axes[_path(place)] = (inside, 0 if layer.batch_axis else inside + outside)
        elif isinstance(layer, nnx.Conv | nnx.ConvTranspose):
            axes[_path(place)] = (None, len(layer.kernel_size) + 2)
    return axes


def _holds_tracers(graph: Any) -> bool:
    statics = [getattr(attribute, "value", None) for _, attribute in graph.attributes]
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(statics))


def _path(place: tuple) -> str:
    return "/".join(map(str, place))


def _child(parent: Any, step: Any) -> Any:
    return getattr(parent, step) if isinstance(step, str) else parent[step]
