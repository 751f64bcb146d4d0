"""A stage checked and resolved: what trains, what is frozen, what is fresh, what is loaded."""

import dataclasses
import functools
import logging
import re
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.blame import explain
from jaxtl.paths import FROZEN, closest, flatten, key, label, matches, select
from jaxtl.plan import Model, Params, PyTree, Stage, StageShape, State, Statistics, Weights
from jaxtl.plan.batch import Role
from jaxtl.plan.reading import Wanted
from jaxtl.train.resolve.contract import check_method, check_rules, differing
from jaxtl.train.resolve.inputs import example_inputs

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Setup:
    """What the program of a stage is built from.

    Attributes:
        stage: the stage.
        model: its model, with the batch statistics live exactly where their scale trains.
        inputs: abstract model inputs of one example, leading axis [1].
        groups: {parameter path: optimizer's name, or `FROZEN`}.
        solved: paths of the parameters that the method computes in closed form, and of the fresh
            ones that an adapter computes from loaded weights.
        fresh: paths of parameters and batch statistics that are initialised, not loaded.
        params, state: abstract values of one seed.
        shape: what the method's networks and state are made for.
        published: {path: array} of the leaves that come from the stage's `weights`.
        weights_report: what was done to get them.
        shared: parameters that are the same for all replicas, held once: published ones that
            neither this stage nor one before it has changed.
        origin: the weights that these come from.
        initialisation: the traced program of what is fresh.
    """

    stage: Stage
    model: Model
    inputs: PyTree
    groups: Mapping[str, str]
    solved: frozenset[str]
    fresh: frozenset[str]
    params: Params
    state: State
    shape: StageShape
    published: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)
    weights_report: str = ""
    shared: frozenset[str] = frozenset()
    origin: Weights | None = None
    initialisation: Any = dataclasses.field(default=None, repr=False, compare=False)

    @functools.cached_property
    def traces(self) -> dict[Hashable, Any]:
        """{which, for which shapes: a program of the stage that was traced}."""
        return {}

    @property
    def constant(self) -> frozenset[str]:
        """Parameters that the stage loads and never changes; its checkpoints do without them."""
        paths = (path for path, group in self.groups.items() if group == FROZEN)
        return frozenset(paths) - self.fresh - self.solved

    @property
    def trainable(self) -> frozenset[str]:
        return frozenset(path for path, group in self.groups.items() if group != FROZEN)

    @property
    def solvers(self) -> list[Any]:
        """The adapters that compute fresh parameters from loaded weights."""
        return [a for a in self.model.adapters if any(matches(a.solves, p) for p in self.fresh)]

    @property
    def sizes(self) -> tuple[int, int]:
        """(trained, total) number of parameters of one seed; if none is, solved ones count."""
        flat = flatten(self.params)
        return (
            sum(flat[path].size for path in self.trainable or self.solved),
            sum(leaf.size for leaf in flat.values()),
        )


def roles_of(stage: Stage) -> tuple[Role, ...]:
    """Those of its domains, or of the rows of its episodes."""
    if stage.episodes is not None:
        return stage.episodes.roles
    return tuple(domain.role for domain in stage.domains)


def lead_of(stage: Stage) -> tuple[int, int]:
    """The first two axes of its batches: (examples, domains), or (episodes, rows of each)."""
    return stage.batch_size, len(roles_of(stage))


def active_heads(stage: Stage) -> tuple[str, ...]:
    """Heads that some domain of the stage names, in the model's order."""
    named = {head for domain in stage.domains for head in domain.heads}
    return tuple(head for head in stage.model.heads if head in named)


def shape_of(stage: Stage) -> StageShape:
    """What a stage's method gets to know of it; the tables are loaded."""
    rows = tuple(len(domain.dataset.table()) for domain in stage.domains)
    classes = {name: stage.model.heads[name].size for name in active_heads(stage)}
    return StageShape(roles_of(stage), rows, classes, stage.batch_size)


def initialise(
    stage: Stage, inputs: PyTree, shape: StageShape, seed: jax.Array | int
) -> tuple[Params, Statistics]:
    """Fresh values of one seed; each depends on the seed and its own path only."""
    inputs = jax.tree.map(jnp.zeros_like, inputs)
    rng = jax.random.key(seed)
    params, statistics = stage.model.init(key(rng, "init"), inputs)
    if not stage.method.modules:
        return params, statistics
    apply = functools.partial(stage.model.apply, rng=jax.random.key(0))
    output = jax.tree.map(jnp.zeros_like, jax.eval_shape(apply, params, statistics, inputs)[0])

    def after(block: str) -> PyTree:
        first = stage.model.cut(block)[0]
        shapes = jax.eval_shape(
            functools.partial(first.apply, rng=jax.random.key(0)), params, statistics, inputs
        )
        return jax.tree.map(jnp.zeros_like, shapes[0]["features"])

    output = {**output, "inputs": inputs, "after": after}
    sizes = {path: leaf.shape for path, leaf in flatten(params).items()}
    shape = shape._replace(parameters=sizes)
    modules = {
        name: module.init(key(rng, name), output, shape)
        for name, module in stage.method.modules.items()
    }
    return {**params, **modules}, statistics


def resolve(stage: Stage, parent: Setup | None) -> Setup:
    """Check a stage against its model, its data and the stage before it.

    Raises:
        ValueError: something does not fit; the message names the stage and lists all of it.
    """
    try:
        return _resolve(stage, parent)
    except Exception as error:  # whatever a model or an augmentation of one's own raises
        raise ValueError(f"stage {stage.name!r}: {explain(error)}") from error


def _initialisation(
    stage: Stage, inputs: PyTree, shape: StageShape, parent: Setup | None
) -> tuple[Any, tuple[Params, Statistics]]:
    """The traced program of one seed's fresh values, and these in the abstract."""
    if (
        parent is not None
        and parent.stage.model is stage.model
        and parent.inputs == inputs
        and not (parent.stage.method.modules or stage.method.modules)
    ):  # the same program: nothing else of a stage is read by it
        return parent.initialisation, (parent.params, parent.state.statistics)
    return jax.make_jaxpr(lambda: initialise(stage, inputs, shape, 0), return_shape=True)()


def _resolve(stage: Stage, parent: Setup | None) -> Setup:
    method, model = stage.method, stage.model
    check_method(method)
    inputs = example_inputs(stage)
    shape = shape_of(stage)._replace(inputs=inputs)
    initialisation, (params, statistics) = _initialisation(stage, inputs, shape, parent)
    leaves = {**flatten(params), **flatten(statistics)}
    paths, running = list(flatten(params)), list(flatten(statistics))
    idle = [p for h in model.heads.keys() - active_heads(stage) for p in _owned_by(model, h)]
    fixed = [pattern for adapter in model.adapters for pattern in adapter.constant]
    groups = _groups(stage, paths, idle, fixed)
    solved = {path for path in select(method.solves, paths) if not matches(idle, path)}

    published, report = {}, ""
    if parent is None and stage.weights is None:
        fresh = {*paths, *running}
    else:
        fresh = _fresh(stage, paths, running)
        if parent is None:
            wanted = {path: leaf for path, leaf in leaves.items() if path not in fresh}
            published, report = stage.weights.read(Wanted(wanted, others=fresh))
        elif stage.weights is not None:
            raise ValueError(
                f"it follows stage {parent.stage.name!r}, so it cannot start from "
                f"{stage.weights.name}"
            )
        else:
            _check_load(parent, leaves, fresh)
    for adapter in model.adapters:
        solved |= select(adapter.solves, paths).intersection(fresh)
    meant = (*idle, *fixed, *getattr(model, "trained", ()))
    random = sorted(
        path
        for path in fresh.intersection(paths)
        if groups[path] == FROZEN and path not in solved and not matches(meant, path)
    )
    if random and not method.fresh_frozen:
        raise ValueError(
            f"fresh and frozen, so they would stay random: {', '.join(random)}. "
            "Load them, train them, or set fresh_frozen on the method if that is the point"
        )

    live = [path for path in running if _layer_trains(path, groups)]
    check_rules(method, live)
    live = tuple(map(re.escape, live))
    if parent is not None and parent.stage.model is model and parent.model.live == live:
        model = parent.model  # what is remembered of it serves this stage too
    else:
        model = dataclasses.replace(model, live=live)
    memory = None
    if method.state is not None:
        memory = jax.eval_shape(lambda *args: method.state(model, *args, shape), params, statistics)
    if method.remembers and parent is not None:
        _check_memory(stage, parent, memory)
    setup = Setup(
        stage=stage,
        model=model,
        inputs=inputs,
        groups=groups,
        solved=frozenset(solved),
        fresh=frozenset(fresh),
        params=params,
        state=State(statistics, memory),
        shape=shape,
        published=published,
        weights_report=report,
        origin=stage.weights if parent is None else parent.origin,
        initialisation=initialisation,
    )
    agreed = frozenset(published) if parent is None else parent.shared
    return dataclasses.replace(setup, shared=setup.constant & agreed)


def _owned_by(model: Model, head: str) -> tuple[str, ...]:
    """Path patterns of what no other head of a model reads."""
    owned_by = getattr(model, "owned_by", None)
    return owned_by(head) if owned_by else (f"heads/{re.escape(head)}/.*",)


def _groups(stage: Stage, paths: list[str], idle: list[str], fixed: list[str]) -> dict[str, str]:
    """{parameter path: optimizer's name, or `FROZEN`}; heads that no domain names do not train.

    Args:
        idle: patterns of these heads.
        fixed: patterns of what adapters keep constant.

    Raises:
        ValueError: an optimizer trains nothing.
    """
    patterns = {name: patterns for name, (patterns, _) in stage.method.optimizers.items()}
    groups = label(paths, patterns)
    constant = (*idle, *fixed)
    groups = {p: FROZEN if matches(constant, p) else group for p, group in groups.items()}
    for name in patterns:
        if name not in (FROZEN, *groups.values()):
            raise ValueError(
                f"group {name!r} {tuple(patterns[name])} trains nothing: it matches only heads "
                f"that no domain of this stage names (those named: {sorted(active_heads(stage))})"
            )
    if stage.method.updates and not set(groups.values()) - {FROZEN}:
        raise ValueError("nothing trains: the method's optimizers match no parameter")
    return groups


def _layer_trains(statistic: str, groups: Mapping[str, str]) -> bool:
    """Whether the layer of a batch statistic trains: its scale or bias, else anything above it."""
    layer = statistic
    while "/" in layer:
        layer = layer.rpartition("/")[0]
        if siblings := [path for path in groups if path.startswith(f"{layer}/")]:
            return any(groups[path] != FROZEN for path in siblings)
    return False


def _fresh(stage: Stage, paths: list[str], statistics: list[str]) -> set[str]:
    modules = {path for path in paths if path.split("/")[0] in stage.method.modules}
    chosen = select(stage.fresh, paths)
    layers = {path.rsplit("/", 1)[0] for path in chosen}
    return chosen | modules | {path for path in statistics if path.rsplit("/", 1)[0] in layers}


def _check_memory(stage: Stage, parent: Setup, memory: PyTree) -> None:
    """Raises ValueError if a state that goes on from the stage before does not fit any more.

    One of another kind, which shares no path with it, starts anew.
    """
    before = parent.state.method
    lines = list(differing(before, memory))
    old, new = (
        {path for path, _ in jax.tree_util.tree_leaves_with_path(tree)} for tree in (before, memory)
    )
    if lines and old & new:
        raise ValueError(
            f"the method goes on from its state after stage {parent.stage.name!r}, which does not "
            f"fit any more: {'; '.join(lines)}. Let both stages have the same heads and train the "
            "same parameters"
        )
    if lines and old:
        logger.info("stage %s: its state starts anew, not from %s", stage.name, parent.stage.name)


def _check_load(parent: Setup, leaves: Mapping[str, Any], fresh: set[str]) -> None:
    """Raises ValueError that lists every parameter which is neither fresh nor in the parent."""
    parent_leaves = flatten(parent.params) | flatten(parent.state.statistics)
    if problems := load_problems(leaves, parent_leaves, fresh):
        raise ValueError(
            f"cannot load {len(problems)} of {len(leaves)} parameters from stage "
            f"{parent.stage.name!r}:\n  " + "\n  ".join(problems)
        )


def load_problems(
    leaves: Mapping[str, Any], source: Mapping[str, Any], fresh: set[str], remedies: bool = True
) -> list[str]:
    """One line for each leaf that is not fresh and does not fit one of the source.

    Args:
        remedies: say what `fresh` can do about it.
    """
    problems = []
    for path, leaf in leaves.items():
        if path in fresh:
            continue
        if path not in source:
            near = ", ".join(closest(path, source)) or "none"
            line, remedy = f"{path}: not there; closest: {near}", "if it is new"
        elif tuple(source[path].shape) != tuple(leaf.shape):
            line = f"{path}: there {list(source[path].shape)}, model {list(leaf.shape)}"
            remedy = "to start anew"
        else:
            continue
        problems.append(f"{line}  (name it in `fresh` {remedy})" if remedies else line)
    return problems


def leftovers(setup: Setup, parent: Setup) -> list[str]:
    """Paths of the parent's parameters that the stage does not load."""
    used = set(flatten(setup.params)) - setup.fresh
    return sorted(set(flatten(parent.params)) - used)
