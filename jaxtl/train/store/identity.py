"""What a finished or interrupted stage is: the answer to "may this run go on from it?".

The identity of a stage and its seeds holds what can change its result and nothing else: the traced
programs with all their constants, digests of the rows that each seed reads, the stage's numbers,
published weights, the code that runs on the host, and the identity of the stage before.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxtl.data.digest import of_arrays
from jaxtl.files import digest
from jaxtl.fingerprint import Fingerprint, of_jaxpr, of_traced, of_value
from jaxtl.paths import flatten
from jaxtl.plan import Stage
from jaxtl.train.feed.digest import data_digests
from jaxtl.train.feed.order import Stream, index_block
from jaxtl.train.feed.tempered import TemperedStream, stream_of
from jaxtl.train.rehearsal import step_fingerprint
from jaxtl.train.resolve.replicas import Replicas
from jaxtl.train.resolve.stage import Setup
from jaxtl.train.resolve.traced import traced_outputs

Identity = dict[str, Any]

RULES = 2
"""Raise it with every change of what a stage ends with that stands in no traced program: when
validation comes, what is averaged, in which order host code is called."""

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
WORDS = {
    "rules": "the rules by which this version of jaxtl trains",
    "order": "the order in which examples are drawn",
    "programs.initialisation": "the program that initialises it",
    "programs.step": "the program of its training step",
    "programs.outputs": "what its model computes",
    "parameters": "the names and shapes of its parameters",
    "fresh": "which of its parameters start anew",
    "host_code": "code of its method that runs on the host",
    "weights": "the file of its published weights",
    "published": "the published weights that it starts from",
    "parent": "the stage before it",
    "experiment_file": "the experiment's file, some of whose code cannot be compared",
}
"""What the digests of an identity are of."""


def file_digest(path: str | os.PathLike) -> str:
    """SHA-256 of one file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


@functools.cache
def versions() -> dict[str, str]:
    """Of what programs and host code are made by: they can be compared where these are equal."""
    libraries = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **libraries}


def outputs_fingerprint(setup: Setup) -> Fingerprint:
    """Of what the stage's model says of examples that it is not trained on."""
    traced = traced_outputs(setup, setup.stage.method.predict)
    args = (setup.params, setup.state, setup.inputs)
    return of_traced(traced.jaxpr, traced.out_info, *args)


def stage_identity(
    replicas: Replicas,
    parents: Sequence[Identity],
    validation: tuple[Mapping[str, Any] | None, bool],
    settings: Mapping[str, Any],
    experiment_digest: str,
) -> Identity:
    """All that the weights of a stage depend on, as JSON.

    What belongs to one seed stands under its number, so that the identity of some of the seeds is
    a part of that of all, see `of_seeds`.

    Args:
        replicas: some seeds, for each point of a sweep.
        parents: of the stage before, for these seeds; of several programs in a sweep.
        validation: what is measured while it trains, as JSON with its data under "data"; whether
            some of that code cannot be looked into.
        settings: of the run, that change numbers.
        experiment_digest: of the experiment's file, which stands in for code that cannot be looked
            into.
    """
    setup, stage = replicas.setup, replicas.setup.stage
    count = len(replicas) // replicas.points
    measured, unreadable = validation
    prints = {"initialisation": of_jaxpr(setup.initialisation), "step": step_fingerprint(replicas)}
    host = [_host_code(each) for each in replicas.setups[::count]]
    if any(host) or measured:
        prints["outputs"] = outputs_fingerprint(setup)
    code = [of_value(host)] if any(host) else []
    identity = {
        "stage": stage.name,
        "rules": RULES,
        "order": of_value(_orders(stage)).digest,
        **settings,
        "steps": stage.num_steps,
        "batch_size": stage.batch_size,
        "prepare_every": stage.method.prepare_every,
        "remembers": stage.method.remembers,
        "parameters": digest(_shapes(setup)),
        "fresh": digest([sorted(setup.fresh), sorted(setup.solved)]),
        "programs": {name: each.digest for name, each in prints.items()},
        "host_code": code[0].digest if code else None,
        "weights": stage.weights.digest() if stage.weights else None,
        "published": of_arrays(setup.published).digest if setup.published else None,
        "data": data_digests(replicas),
        "validation": measured,
        "parent": {
            str(seed): seed_digest(parents, seed) for seed in replicas.seeds[:count] if parents
        },
        "seeds": list(replicas.seeds[:count]),
    }
    if replicas.values:
        identity["points"] = {
            name: values[::count].tolist() for name, values in replicas.values.items()
        }
    if unreadable or any(each.opaque for each in (*prints.values(), *code)):
        identity["experiment_file"] = experiment_digest
    return json.loads(json.dumps(identity))


def _orders(stage: Stage) -> tuple[Any, ...]:
    """The code that says in which order examples come."""
    drawn = any(domain.draw is not None for domain in stage.domains)
    return (Stream, index_block, *((TemperedStream, stream_of) if drawn else ()))


def seed_digest(identities: Sequence[Identity], seed: int) -> str:
    """Of what one seed of a stage, or of several programs of it, is; names of datasets apart."""
    return digest([nameless(of_seeds(identity, [seed])) for identity in identities])


def nameless(identity: Any) -> Any:
    """An identity, or a part of one, without what datasets are called."""
    if not isinstance(identity, Mapping):
        return identity
    return {
        key: nameless(value)
        for key, value in identity.items()
        if not (key == "name" and "seeds" in identity)
    }


def _shapes(setup: Setup) -> list[list[Any]]:
    leaves = {**flatten(setup.params), **flatten(setup.state.statistics)}
    return sorted([path, list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves.items())


def _host_code(setup: Setup) -> list[Any]:
    """What a stage runs on the host before or between its steps."""
    solvers = [adapter.after_loading for adapter in setup.solvers]
    prepare = setup.stage.method.prepare
    return solvers if prepare is None else [*solvers, prepare]


def of_seeds(identity: Identity, seeds: Collection[int]) -> Identity:
    """The identity of some of the seeds of a block."""
    names = {str(seed) for seed in seeds}

    def data(entries: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: {**entry, "seeds": {s: v for s, v in entry["seeds"].items() if s in names}}
            for name, entry in entries.items()
        }

    restricted = {**identity, "seeds": [s for s in identity["seeds"] if s in set(seeds)]}
    if "rules" not in identity:  # of an earlier version
        return restricted
    restricted["data"] = data(identity["data"])
    restricted["parent"] = {s: v for s, v in identity["parent"].items() if s in names}
    if validation := identity["validation"]:
        restricted["validation"] = {**validation, "data": data(validation["data"])}
    return restricted


def join_identities(blocks: Sequence[Identity], seeds: Sequence[int]) -> Identity:
    """The identity of seeds that stand in several blocks of one stage."""
    joined = dict(blocks[0])
    for block in blocks[1:]:
        if "rules" not in block:
            continue
        for name in ("data", "parent"):
            joined[name] = _merge(joined[name], block[name])
        if block["validation"]:
            joined["validation"] = _merge(joined["validation"], block["validation"])
        joined["seeds"] = [*joined["seeds"], *block["seeds"]]
    return of_seeds(joined, seeds)


def _merge(old: Any, new: Any) -> Any:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    common = {key: _merge(value, new[key]) for key, value in old.items() if key in new}
    return {**old, **new, **common}


def changes(record: Mapping[str, Any], identity: Identity, experiment_digest: str) -> list[str]:
    """What forbids to go on from a stage, in words, a line each; none if nothing does.

    Where libraries or Python have changed, programs cannot be compared: the experiment's file
    stands in for them, and the stage before is compared by itself.

    Args:
        record: of the stage as it was trained, from its stage.json.
        identity: of the stage as it is now, for some of its seeds.
        experiment_digest: of the experiment's file as it is now.
    """
    before = record["identity"]
    if "rules" not in before:
        return ["it was trained by an earlier version of jaxtl"]
    before, now = of_seeds(before, identity["seeds"]), dict(identity)
    comparable = record["made_with"]["versions"] == versions()
    for each, file in ((before, record["experiment_file"]), (now, experiment_digest)):
        del each["seeds"]
        if not comparable:
            each["experiment_file"] = file
            for name in ("programs", "host_code", "order", "parent"):
                del each[name]
            if each["validation"]:
                each["validation"] = {**each["validation"], "programs": None}
    return _in_words(before, now)


def _in_words(before: Mapping[str, Any], now: Mapping[str, Any], place: str = "") -> list[str]:
    lines = []
    for key in [*now, *(key for key in before if key not in now)]:
        old, new, name = before.get(key), now.get(key), f"{place}{key}"
        if old == new:
            continue
        if key == "data" and isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += _data_in_words(old, new)
        elif name in WORDS:
            lines.append(WORDS[name])
        elif isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += _in_words(old, new, f"{name}.")
        elif name.startswith("validation"):
            lines.append("what is measured while it trains")
        else:
            lines.append(f"{name}: there {old!r}, now {new!r}")
    return list(dict.fromkeys(lines))


def _data_in_words(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in dict.fromkeys([*new, *old]):
        before, now = old.get(name), new.get(name)
        if before == now:
            continue
        if before is None or now is None:
            dataset = (now or before)["name"]
            lines.append(f"{name} ({dataset}): read {'now' if before is None else 'there'} only")
            continue
        seeds = [s for s, value in now["seeds"].items() if before["seeds"].get(s) != value]
        if not seeds:
            continue
        sampled = " (its files' sizes, times or sampled rows)" if now["sampled"] else ""
        which = "" if len(seeds) == len(now["seeds"]) else f" of the seeds {', '.join(seeds)}"
        lines.append(f"{name} ({now['name']}): the data{which} have changed{sampled}")
    return lines


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line for each entry in which two JSON objects differ."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after, name = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{name}.")
        elif before != after:
            lines.append(f"{name}: there {before!r}, now {after!r}")
    return lines


def surroundings(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage is made with that may change the last bits of its numbers but forbids nothing.

    Args:
        options: of the run, that change how sums are split.
    """
    devices = sorted({str(device.device_kind) for device in jax.devices()})
    return {
        "versions": versions(),
        "devices": f"{jax.device_count()} x {', '.join(devices)}",
        **options,
    }
