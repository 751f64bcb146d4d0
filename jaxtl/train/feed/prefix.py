"""Which first blocks of a stage's model could as well run once per example.

Both questions are put to the traced program, not to names: what training can change in the outputs
of a block, and what else than these outputs a method's losses would need.
"""

import bisect
import itertools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from jaxtl.features import Program, cut, trace
from jaxtl.paths import flatten, matches
from jaxtl.plan import Model, Params, PyTree, State
from jaxtl.train.feed.examples import abstract_batch
from jaxtl.train.resolve.stage import Setup


class Prefix(NamedTuple):
    """First blocks of a model.

    Attributes:
        block: the last of them.
        first, rest: the model of these blocks, whose features the other one starts from.
        program: of their features.
    """

    block: str
    first: Model
    rest: Model
    program: Program

    @property
    def reads(self) -> frozenset[str]:
        """Paths of the parameters and batch statistics that their outputs depend on."""
        return frozenset(self.program.reads)


def constant_prefix(setup: Setup) -> Prefix | None:
    """The longest prefix whose outputs for an example are the same at every step of the stage.

    No training step changes what they depend on: parameters and batch statistics, but no random
    numbers. That they do not depend on the other examples of the batch is taken for granted, as
    in evaluation.
    """
    if any(domain.augment is not None for domain in setup.stage.domains):
        return None
    changing = _changing(setup)
    if setup.stage.method.prepare_every:
        changing |= {*flatten(setup.state.statistics), *setup.fresh, *setup.solved}
    return _longest(setup, changing, train=True)


def frozen_prefix(setup: Setup) -> Prefix | None:
    """The longest prefix that evaluates after the stage as it did before it.

    It reads nothing that the stage trains, computes or initialises, so that other stages and seeds
    that start from the same weights have the same features, for the same rows.
    """
    changing = _changing(setup) | {*setup.fresh, *setup.solved}
    if setup.stage.method.prepare is not None:
        changing |= {*flatten(setup.state.statistics)}
    return _longest(setup, changing, train=False)


def _changing(setup: Setup) -> set[str]:
    """Paths of what training steps change."""
    statistics = flatten(setup.state.statistics)
    return {path for path in statistics if matches(setup.model.live, path)} | setup.trainable


def _longest(setup: Setup, changing: set[str], train: bool) -> Prefix | None:
    """The longest prefix that reads none of these paths, and no random numbers."""

    def is_constant(block: str) -> bool:
        return not any(path.startswith(f"backbone/{block}/") for path in changing)

    def prefix(block: str) -> Prefix | None:
        first, rest = cut(setup.model, block)
        program = trace(first, setup.params, setup.state.statistics, setup.inputs, train=train)
        moves = train and program.moves_statistics
        if program.is_random or moves or not changing.isdisjoint(program.reads):
            return None
        return Prefix(block, first, rest, program)

    blocks = list(itertools.takewhile(is_constant, setup.model.blocks))
    if not blocks:
        return None
    if (longest := prefix(blocks.pop())) is not None:  # most often
        return longest
    prefixes: dict[str, Prefix | None] = {}

    def changes(block: str) -> bool:
        prefixes[block] = prefix(block)
        return prefixes[block] is None

    # A block that changes makes those after it change: bisection traces few of them.
    count = bisect.bisect_left(blocks, True, key=changes)
    return prefixes[blocks[count - 1]] if count else None


def needs_only_features(setup: Setup, prefix: Prefix) -> bool:
    """Whether every loss hands the inputs of whole examples to the model, and to nothing else.

    Such a loss cannot tell whether the model starts from the inputs or, with the rest of the
    blocks, from the prefix's outputs. One that mixes, perturbs or reconstructs the inputs can, and
    so can one that calls the model with parameters of its own in these blocks.
    """
    batch = abstract_batch(setup)
    inputs = batch.inputs
    args = (inputs, batch, setup.params, setup.state, jax.random.key(0), jnp.int32(0))
    for update in setup.stage.method.updates:

        def loss(inputs, batch, params, state, rng, step, update=update):
            model = _opaque(setup.model, prefix, flatten(params) | flatten(state.statistics))
            return update.loss(model, params, state, batch.replace(inputs=inputs), rng, step)

        jaxpr = jax.make_jaxpr(loss)(*args).jaxpr
        leaves = jax.tree.leaves(inputs)
        examples = {
            var: (i, leaf.shape[2:])
            for i, (var, leaf) in enumerate(zip(jaxpr.invars, leaves, strict=False))
        }
        if not _reach_only_the_model(jaxpr, examples):
            return False
    return True


def predicts_from_features(setup: Setup, prefix: Prefix) -> bool:
    """Whether the stage's predictions hand whole inputs to the model, and to nothing else.

    As `needs_only_features`; of a method without a `predict` of its own they do.
    """
    predict = setup.stage.method.predict
    if predict is None:
        return True

    def run(inputs: PyTree, params: Params, state: State) -> PyTree:
        model = _opaque(setup.model, prefix, flatten(params) | flatten(state.statistics))
        return predict(model, params, state, inputs)

    jaxpr = jax.make_jaxpr(run)(setup.inputs, setup.params, setup.state).jaxpr
    leaves = jax.tree.leaves(setup.inputs)
    examples = {
        var: (i, leaf.shape[1:])
        for i, (var, leaf) in enumerate(zip(jaxpr.invars, leaves, strict=False))
    }
    return _reach_only_the_model(jaxpr, examples)


def _opaque(model: Model, prefix: Prefix, leaves: Mapping[str, jax.Array]) -> Model:
    """The model as one equation of the traced program, if called with the prefix as it is.

    Args:
        leaves: {path: leaf} of the stage, to be recognised.
    """
    plain = type(model)

    class Opaque(plain):
        def apply(self, params, statistics, inputs, **options):
            given = flatten(params) | flatten(statistics)

            def whole_model(params, statistics, inputs):
                return plain.apply(self, params, statistics, inputs, **options)

            if any(given.get(path) is not leaves[path] for path in prefix.reads):
                return whole_model(params, statistics, inputs)
            return jax.jit(whole_model)(params, statistics, inputs)

        def cut(self, block):
            before, after = plain(**vars(self)).cut(block)
            if prefix.block in before.blocks[:-1]:
                before = _opaque(before, prefix, leaves)
            return before, after

    return Opaque(**vars(model))


def _reach_only_the_model(jaxpr: jex.Jaxpr, examples: dict[jex.Var, tuple]) -> bool:
    """Whether inputs are regrouped along their leading axes at most before the model gets them.

    Args:
        jaxpr: a loss of an `_opaque` model.
        examples: {variable that holds inputs: (leaf, shape of one example)}.
    """
    for eqn in jaxpr.eqns:
        held = {examples[var] for var in _variables(eqn.invars) if var in examples}
        if not held or eqn.params.get("name") == "whole_model":
            continue
        leaf, shape = min(held)
        if (
            len(held) > 1
            or eqn.primitive.name not in ("reshape", "squeeze", "slice", "concatenate")
            or any(var.aval.shape[var.aval.ndim - len(shape) :] != shape for var in eqn.outvars)
        ):
            return False
        examples = examples | dict.fromkeys(eqn.outvars, (leaf, shape))
    return examples.keys().isdisjoint(_variables(jaxpr.outvars))


def _variables(atoms: Iterable) -> list[jex.Var]:
    return [atom for atom in atoms if not isinstance(atom, jex.Literal)]
