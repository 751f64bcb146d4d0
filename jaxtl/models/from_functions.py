"""Pure functions as a backbone of one block: plain JAX, Equinox, Haiku."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from jaxtl.models.blocks import Block, identity
from jaxtl.models.foreign import Foreign, Leaves, joined
from jaxtl.models.from_linen import Output, selector
from jaxtl.models.model import from_blocks
from jaxtl.paths import closest
from jaxtl.plan import Head, Model, PyTree


def from_functions(
    init: Callable[[jax.Array, PyTree], PyTree],
    apply: Callable[..., PyTree],
    heads: Mapping[str, Head],
    *,
    name: str = "body",
    has_state: bool = False,
    output: Output = None,
    before: Callable[[PyTree], PyTree] = identity,
) -> Model:
    """Any pair of pure functions as a backbone of one block.

    Parameters may be any pytree of arrays, such as Haiku's dictionaries or the arrays of an Equinox
    module: a leaf is addressed by the names above it, `backbone/<name>/layers/0/weight`, and the
    functions see the tree as it was.

    Args:
        init: (rng, inputs [n, ...]) -> params; with a state, (params, state).
        apply: (params, inputs [n, ...], *, rng, train) -> outputs. `rng` is None where the model is
            given none, as in evaluation; `train` and `rng` are left out if it does not take them.
            With a state, (params, state, inputs, *, rng, train) -> (outputs, state); it may take
            `live`, which is False where statistics must stay as they are and are to be used so.
        name: of the block.
        has_state: there are batch statistics or other arrays that follow the data.
        output: which of several outputs the features are, as in `from_linen`.

    Raises:
        ValueError: `apply` cannot be called so; from `init` and `apply` of the model, a leaf is no
            array, two have the same path, the tree is another one than `init` gave, or some of the
            statistics are constants and `apply` cannot be told.
    """
    flags = _flags(name, apply, 3 if has_state else 2)
    source = _Functions(name, init, apply, flags, has_state)
    return from_blocks([Block(name, Foreign(source), selector(name, output))], heads, before=before)


def _flags(name: str, apply: Callable, count: int) -> set[str]:
    """Which of `rng`, `train` and `live` a function takes."""
    problem = None
    if not callable(apply):
        problem = f"it is a {type(apply).__name__}"
    else:
        try:
            parameters = inspect.signature(apply).parameters
        except (TypeError, ValueError):  # of a built-in function
            return {"rng", "train"}
        every = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        flags = {f for f in ("rng", "train", "live") if every or f in parameters}
        try:
            inspect.signature(apply).bind(*[None] * count, **dict.fromkeys(flags))
        except TypeError as error:
            problem = str(error)
    if problem is None:
        return flags
    given = "params, state, inputs" if count == 3 else "params, inputs"
    raise ValueError(f"block {name!r}: `apply` is called as ({given}, *, rng, train): {problem}.")


class _Functions:
    """The source of a pair of functions."""

    kernel_axes: Mapping[str, tuple[int | None, int]] = {}
    is_trained = False

    def __init__(
        self, name: str, init: Callable, apply: Callable, flags: set[str], has_state: bool
    ):
        self.name, self.init, self.apply = f"block {name!r}", init, apply
        self.flags, self.has_state = flags, has_state
        self._forms: tuple[Any, Any] | None = None

    def start(self, rng: jax.Array, inputs: PyTree) -> tuple[Leaves, Leaves]:
        trees = self._trees(self.init(rng, inputs))
        self._forms = tuple(jax.tree.structure(tree) for tree in trees)
        return tuple(self._leaves(tree) for tree in trees)

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
        if self._forms is None:  # of a model whose parameters come from elsewhere
            shapes = jax.eval_shape(self.init, jax.random.key(0), inputs)
            self._forms = tuple(jax.tree.structure(tree) for tree in self._trees(shapes))
        trees = [
            self._tree(form, leaves)
            for form, leaves in zip(self._forms, (params, statistics), strict=True)
        ]
        constant = [path for path in statistics if not live(path)] if train else []
        given = {"rng": rng, "train": train, "live": train and not constant}
        flags = {flag: given[flag] for flag in self.flags}
        if not self.has_state:
            return self.apply(trees[0], inputs, **flags), statistics
        if constant:
            self._check_constant(constant, statistics)
        results = self.apply(*trees, inputs, **flags)
        if not (isinstance(results, tuple) and len(results) == 2):
            raise ValueError(
                f"{self.name}: with `has_state`, `apply` gives (outputs, state); this is "
                f"a {type(results).__name__}."
            )
        outputs, state = results
        if jax.tree.structure(state) != self._forms[1]:
            raise ValueError(
                f"{self.name}: `apply` gives a state of another form, {jax.tree.structure(state)}; "
                f"`init` gave {self._forms[1]}."
            )
        return outputs, self._leaves(state)

    def _check_constant(self, constant: Sequence[str], statistics: Leaves) -> None:
        said = f"{self.name}: the layers of the statistics {', '.join(constant[:3])} do not train"
        if len(constant) < len(statistics):
            raise ValueError(
                f"{said}, others do, and functions cannot be told which: train all layers with "
                "statistics, or none."
            )
        if "live" not in self.flags:
            raise ValueError(
                f"{said}, so they stay as they are: let `apply` take `live`, and use them "
                "unchanged where it is False."
            )

    def _trees(self, made: PyTree) -> tuple[PyTree, PyTree]:
        if not self.has_state:
            return made, {}
        if not (isinstance(made, tuple) and len(made) == 2):
            raise ValueError(
                f"{self.name}: with `has_state`, `init` gives (params, state); this is "
                f"a {type(made).__name__}."
            )
        return made

    def _leaves(self, tree: PyTree) -> dict[str, Any]:
        leaves: dict[str, Any] = {}
        for place, leaf in jax.tree_util.tree_leaves_with_path(tree):
            path = joined(tuple(map(_key, place)), leaves, self.name)
            if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
                raise ValueError(
                    f"{self.name}: {path} is a {type(leaf).__name__}, no array; `init` gives "
                    "arrays only, such as `eqx.filter(module, eqx.is_array)`."
                )
            leaves[path] = leaf
        return leaves

    def _tree(self, form: Any, leaves: Leaves) -> PyTree:
        numbered = jax.tree.unflatten(form, range(form.num_leaves))
        places = self._paths(numbered)
        if missing := [path for path in places if path not in leaves]:
            near = ", ".join(closest(missing[0], leaves)) or "none"
            raise ValueError(f"{self.name}: no parameter {missing[0]}; closest: {near}.")
        return jax.tree.unflatten(form, [leaves[path] for path in places])

    def _paths(self, tree: PyTree) -> list[str]:
        places = (place for place, _ in jax.tree_util.tree_leaves_with_path(tree))
        return ["/".join(map(str, map(_key, place))) for place in places]


def _key(entry: Any) -> Any:
    """The name, key or index in one step of a path of `jax.tree_util`."""
    for field in ("key", "name", "idx"):
        if hasattr(entry, field):
            return getattr(entry, field)
    return str(entry)
