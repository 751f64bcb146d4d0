"""The blocks of a stage: seeds that were trained together, in a folder of their own.

The first block lies in the stage's folder, and those of seeds that came later in folders in it,
such as `seeds-5-9`. The same bits hold within a block.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtl.paths import flatten, nest
from jaxtl.plan import Params, PyTree, Stage, State
from jaxtl.plan.reading import Wanted
from jaxtl.train.mesh import place, to_host
from jaxtl.train.resolve.leaves import load
from jaxtl.train.resolve.replicas import Replicas, concatenate, join_replicas, take
from jaxtl.train.store.checkpoints import restore_block
from jaxtl.train.store.identity import seed_digest
from jaxtl.train.store.log import join_curves
from jaxtl.train.store.record import read_stage


class Block(NamedTuple):
    """Seeds of a stage that were trained together.

    Attributes:
        directory: holds stage.json, metrics.jsonl and checkpoints/.
        record: its stage.json.
    """

    directory: Path
    record: dict[str, Any]

    @property
    def seeds(self) -> list[int]:
        return self.record["identity"]["seeds"]


def blocks_of(directory: Path) -> list[Block]:
    """The blocks in a stage's folder, the first one first.

    Raises:
        Damaged: a stage.json is.
    """
    folders = [directory, *sorted(directory.glob("seeds-*"))]
    records = ((folder, read_stage(folder)) for folder in folders)
    return [Block(folder, record) for folder, record in records if record is not None]


def new_block(directory: Path, seeds: Sequence[int]) -> Path:
    """Where seeds are to be trained that no block of the stage holds."""
    first = read_stage(directory) is None
    return directory if first else directory / f"seeds-{spans(seeds)}"


def spans(seeds: Iterable[int]) -> str:
    """`0-4,7`: numbers in short."""
    runs = itertools.groupby(enumerate(sorted(seeds)), lambda pair: pair[1] - pair[0])
    ends = [[seed for _, seed in run] for _, run in runs]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in ends)


def restore_chain(
    directory: Path,
    chain: Sequence[Stage],
    seeds: Sequence[int],
    wanted: Mapping[str, jax.ShapeDtypeStruct],
    method_state: PyTree = None,
) -> tuple[dict[str, np.ndarray], PyTree]:
    """What the last stage of a chain handed on.

    A checkpoint lacks what its stage loaded and did not change: that comes from the stage before
    it, in this run or in the one that the stage was loaded from, or from the published weights that
    the chain starts from.

    Args:
        directory: <workdir>/<experiment>.
        chain: finished stages, the first of an arm's first.
        seeds: some of the run's.
        wanted: {path: one seed's leaf} of the model, as far as it is known.
        method_state: as in `restore_weights`.

    Returns:
        ({path: [seeds, ...], published leaves [1, ...]}, the method's own state or None).

    Raises:
        ValueError: a checkpoint or the weights cannot be read, or what comes from the stage before
            is no longer what this one went on from; the message goes on from the last stage's name.
    """
    stage, parts = chain[-1], []
    blocks = blocks_of(directory / "stages" / stage.name)
    if not blocks:
        raise ValueError(f"goes on from stage {stage.name!r}, which {directory} does not hold")
    for seed in seeds:
        block = next((block for block in blocks if seed in block.seeds), None)
        if block is None:
            raise ValueError(f"lacks the seed {seed}")
        parts.append((block, block.seeds.index(seed)))
    folders = dict.fromkeys(block.directory for block, _ in parts)
    trees = {folder: restore_block(folder, method_state) for folder in folders}
    stored = {
        folder: flatten(params) | flatten(state.statistics)
        for folder, (params, state) in trees.items()
    }
    leaves = {
        path: np.stack([stored[block.directory][path][row] for block, row in parts])
        for path in stored[parts[0][0].directory]
    }
    memories = [
        jax.tree.map(lambda leaf, row=row: leaf[row], trees[block.directory][1].method)
        for block, row in parts
    ]
    memory = jax.tree.map(lambda *rows: np.stack(rows), *memories)
    missing = {path: leaf for path, leaf in wanted.items() if path not in leaves}
    if missing and len(chain) > 1:
        before = _before(directory, chain, [block for block, _ in parts], seeds, missing)
        leaves |= {path: before[path] for path in missing if path in before}
    elif missing and stage.weights is not None:
        if any(stage.weights.digest() != block.record["identity"]["weights"] for block, _ in parts):
            raise ValueError(f"started from other weights than {stage.weights.name} now holds")
        published = stage.weights.read(Wanted(missing, others=None))[0]
        leaves |= {path: np.asarray(leaf)[None] for path, leaf in published.items()}
    return leaves, memory


def _before(
    directory: Path,
    chain: Sequence[Stage],
    blocks: Sequence[Block],
    seeds: Sequence[int],
    missing: Mapping[str, jax.ShapeDtypeStruct],
) -> dict[str, np.ndarray]:
    """What the last stage of a chain holds of the one before it.

    Args:
        blocks: of the last stage, one for each seed.
    """
    parent = chain[-2].name
    parents = blocks_of(directory / "stages" / parent)
    if not parents and (source_run := blocks[0].record.get("source_run")):
        directory = Path(source_run)
        parents = blocks_of(directory / "stages" / parent)
    for block, seed in zip(blocks, seeds, strict=True):
        identity = block.record["identity"]
        now = [each.record["identity"] for each in parents if seed in each.seeds]
        if "rules" not in identity or not now:  # of an earlier version, or not there
            continue
        if identity["parent"][str(seed)] != seed_digest(now[:1], seed):
            raise ValueError(
                f"went on from another {parent!r} than {directory} now holds: that has been "
                "trained anew since"
            )
    return restore_chain(directory, chain[:-1], seeds, missing)[0]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished stage.

    Attributes:
        params, state: what is evaluated and handed on; leaves [replicas or 1, ...], on the devices
            while it is measured and NumPy arrays from then on.
        curves: {"step": [t], metric: [t, replicas]}, the logged steps.
        seconds: training time, compilation included.
        steps_per_second: without the first dispatch, all replicas counting as one step; NaN if
            there was no second dispatch.
        memory_mb: device memory that a dispatch takes by XLA's account: what it is given, its
            results and its temporaries, all replicas together; NaN if none was run.
        failed: [replicas] int, the first step whose loss or gradient was not finite, from 1, or 0.
        note: what made its steps cheaper, if anything.
    """

    replicas: Replicas
    params: Params
    state: State
    curves: dict[str, np.ndarray]
    seconds: float
    steps_per_second: float
    memory_mb: float
    failed: np.ndarray
    note: str = ""

    def on_devices(self) -> "Trained":
        """The same, where it can be evaluated."""
        params, state = place((self.params, self.state))
        return dataclasses.replace(self, params=params, state=state)

    def on_host(self, source: tuple[Params, State] | None) -> "Trained":
        """The same with nothing of it on the devices.

        Args:
            source: of the stage before, on the host: what the stage has left as it was loaded is
                not copied, but that of the source.
        """
        setup = self.replicas.setup
        before = {p: x for p, x in load(setup, source).items() if p in setup.constant}
        changed = {path: x for path, x in flatten(self.params).items() if path not in before}
        changed, state = to_host((changed, self.state), copied=True)
        return dataclasses.replace(self, params=nest(before | changed), state=state)

    def without_weights(self) -> "Trained":
        """What stays of it once nothing asks for its parameters."""
        return dataclasses.replace(self, params={}, state=State({}))

    def part(self, chosen: Sequence[int]) -> "Trained":
        """Some of the replicas; a share of the seconds, as they were trained together."""
        rows = np.asarray(chosen)
        if np.array_equal(rows, np.arange(len(self.replicas))):
            return self
        together = slice(rows[0], rows[-1] + 1) if (np.diff(rows) == 1).all() else rows
        params, state = take((self.params, self.state), together)
        return dataclasses.replace(
            self,
            replicas=self.replicas[rows],
            params=params,
            state=state,
            curves={k: v if k == "step" else v[:, rows] for k, v in self.curves.items()},
            seconds=self.seconds * len(rows) / len(self.replicas),
            failed=self.failed[rows],
        )


def join_blocks(parts: Sequence[Trained]) -> Trained:
    """Blocks of one stage, the replicas of one after those of another."""
    if len(parts) == 1:
        return parts[0]
    params, state = join_weights(parts)
    notes = dict.fromkeys(part.note for part in parts if part.note)
    return Trained(
        join_replicas([part.replicas for part in parts]),
        params,
        state,
        join_curves([part.curves for part in parts], [len(part.replicas) for part in parts]),
        sum(part.seconds for part in parts),
        _mean([part.steps_per_second for part in parts]),
        max(part.memory_mb for part in parts),
        np.concatenate([part.failed for part in parts]),
        "; ".join(notes),
    )


def join_weights(parts: Sequence[Trained]) -> tuple[Params, State]:
    """(params, state) of the replicas of one part after those of another."""
    counts = [len(part.replicas) for part in parts]
    shared = join_replicas([part.replicas for part in parts]).shared
    params = concatenate([part.params for part in parts], counts, shared)
    return params, concatenate([part.state for part in parts], counts)


def _mean(rates: Sequence[float]) -> float:
    finite = [rate for rate in rates if math.isfinite(rate)]
    return sum(finite) / len(finite) if finite else math.nan
