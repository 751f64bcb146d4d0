"""A stage rehearsed before any stage trains: its step and predictions are traced, on shapes alone.

What does not fit shows here: a method and the domains of its stage, a loss that returns the
wrong thing, an augmentation that raises, parameters that no memory holds.
"""

import functools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxtl.blame import explain
from jaxtl.fingerprint import Fingerprint, combined
from jaxtl.form import describe
from jaxtl.paths import flatten
from jaxtl.plan import PyTree
from jaxtl.plan.batch import sides_of
from jaxtl.train.feed.examples import first_page, host_feed
from jaxtl.train.resolve.contract import differing, with_place
from jaxtl.train.resolve.replicas import Replicas
from jaxtl.train.resolve.stage import Setup, active_heads, lead_of, roles_of
from jaxtl.train.resolve.traced import Traced, trace
from jaxtl.train.state import begin, group
from jaxtl.train.step import draw, make_step, traced_step


def rehearse(replicas: Replicas, arm: str) -> None:
    """Trace what a stage does, which its identity and its training find traced.

    Raises:
        ValueError: the step or the method's `predict` cannot be traced, or they return what they
            must not; the message begins with arm and stage.
    """
    setup = replicas.setup
    try:
        _check_size(setup, len(replicas))
        if setup.stage.method.aligns:
            sides_of(roles_of(setup.stage))
        _check_heads(setup)
        start, step = rehearsed(replicas)
        if step is not None:
            before, after = start.results[1], step.results[0]
            if lines := list(differing(before, after)):
                raise ValueError(
                    f"a step must leave the form of what it changes: {'; '.join(lines)}"
                )
        _check_prediction(setup)
    except Exception as error:  # whatever a method, a model or an augmentation of one's own raises
        raise ValueError(f"arm {arm!r}, stage {setup.stage.name!r}: {explain(error)}") from error


def abstract_values(replicas: Replicas) -> dict[str, jax.ShapeDtypeStruct]:
    """The swept numbers of one replica, without their values."""
    return {field: jax.ShapeDtypeStruct((), jnp.float32) for field in replicas.values}


def rehearsed(replicas: Replicas) -> tuple[Traced, Traced | None]:
    """All that a replica computes up to its first step, and that step, as they are traced.

    The first is (values, params, state, feed, index, seed, step) -> (state of the method, train
    state, batch, rng), of which the second takes the last three, see `traced_step`; for a method
    without updates it returns the first alone, and there is no second. Any step: its number is an
    argument.
    """
    setup, values = replicas.setup, abstract_values(replicas)
    name = ("start", replicas.rebuild)
    start = trace(setup, name, functools.partial(_start, replicas), values, *_inputs(replicas))
    if not setup.stage.method.updates:
        return start, None
    number = jax.ShapeDtypeStruct((), jnp.int32)
    return start, traced_step(replicas, 1, values, *start.results[1:], number)


def step_fingerprint(replicas: Replicas) -> Fingerprint:
    """Of all that a replica computes up to its first step, and of that step; names apart."""
    return combined(*(each.fingerprint for each in rehearsed(replicas) if each is not None))


def first_step(replicas: Replicas) -> tuple[Callable, tuple]:
    """(values, ...) -> what `rehearsed` returns of both, in one function; its abstract arguments.

    Its Python code runs each time that it is traced, for who asks what the values do to it.
    """

    def run(values, *args):
        started = _start(replicas, values, *args)
        if len(started) == 1:
            return started
        return started, make_step(replicas.at(values))(*started[1:], args[-1])

    return run, (abstract_values(replicas), *_inputs(replicas))


def _start(replicas, values, params, state, feed, index, seed, step) -> tuple:
    changed = replicas.at(values)
    method, memory = changed.stage.method, ()
    if method.state is not None:
        memory = method.state(changed.model, params, state.statistics, changed.shape)
    if not method.updates:
        return (memory,)
    batch, rng = draw(changed.stage, feed, index, seed, step)
    return memory, begin(changed, *group(changed, params), state), batch, rng


def _inputs(replicas: Replicas) -> tuple:
    """The abstract arguments of what is rehearsed, `values` apart."""
    setup, stage = replicas.setup, replicas.setup.stage
    page = first_page(host_feed(replicas[:1]), replicas[:1])
    page = page._replace(per_replica=jax.tree.map(lambda leaf: leaf[0], page.per_replica))
    index = jax.ShapeDtypeStruct(lead_of(stage), jnp.int32)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    return setup.params, setup.state, page, index, number, number


def _check_heads(setup: Setup) -> None:
    """Raises ValueError if a loss of a head is not one number for each label."""
    lead = lead_of(setup.stage)
    for name in active_heads(setup.stage):
        head = setup.model.heads[name]
        outputs = jax.ShapeDtypeStruct((*lead, head.size), jnp.float32)
        labels = jax.ShapeDtypeStruct((*lead, *head.label_shape), head.missing.dtype)
        losses = jax.eval_shape(head.loss, outputs, labels)
        shape = getattr(losses, "shape", None)
        if shape != labels.shape or not jnp.issubdtype(losses.dtype, jnp.floating):
            given = describe(losses) if shape is None else _shape(losses)
            raise ValueError(
                f"{with_place(f'head {name!r}: its loss', head.loss)} must return a float for each "
                f"label, of outputs {list(outputs.shape)} and labels {list(labels.shape)}; it "
                f"returned {given}"
            )


def _check_prediction(setup: Setup) -> None:
    """Raises ValueError if the method's `predict` does not return what a model returns."""
    predict = setup.stage.method.predict
    if predict is None:
        return
    place = with_place("predict", predict)

    def checked_prediction(*args: PyTree) -> Mapping[str, Any]:
        output = predict(setup.model, *args)
        if not isinstance(output, Mapping) or not isinstance(output.get("logits"), Mapping):
            raise ValueError(
                f"{place} must return {{'features': [n, features], 'logits': {{head: [n, size]}}}},"
                f" it returned {describe(output)}"
            )
        return output

    output = jax.eval_shape(checked_prediction, setup.params, setup.state, setup.inputs)
    for name, logits in output["logits"].items():
        head = setup.model.heads.get(name)
        if head is not None and getattr(logits, "shape", None) != (1, head.size):
            shape = list(getattr(logits, "shape", ()))
            raise ValueError(
                f"{place} must return logits [n, {head.size}] for head {name!r}, it returned "
                f"{shape} for one example"
            )


def _check_size(setup: Setup, seeds: int) -> None:
    """Raises ValueError if a parameter is empty, or the machine's memory holds too little."""
    for path, leaf in flatten(setup.params).items():
        if leaf.size == 0:
            raise ValueError(f"parameter {path} is empty, of the shape {list(leaf.shape)}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [device.memory_stats() or {} for device in jax.local_devices()]
    memory = sum(limit.get("bytes_limit", 0) for limit in limits) or memory
    stage = setup.stage
    held_once = _bytes([flatten(setup.params)[path] for path in setup.shared])
    of_each = _bytes((setup.params, setup.state)) - held_once
    sizes = {
        f"the parameters of {seeds} seeds": held_once + seeds * of_each,
        f"batches of {math.prod(lead_of(stage))} examples": math.prod(lead_of(stage))
        * _bytes(setup.inputs),
    }
    for what, size in sizes.items():
        if size > memory:
            raise ValueError(
                f"{what} take {size / 2**30:,.1f} GB, there are {memory / 2**30:,.1f} GB of memory"
            )


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _shape(leaf: jax.ShapeDtypeStruct) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"
