"""Source stages taken from another run's directory instead of trained."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxtl.paths import flatten, nest
from jaxtl.plan import Experiment, Params, State
from jaxtl.study.checks.experiments import Node
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import Setup, load_problems
from jaxtl.train.store.blocks import Block, Trained, blocks_of, restore_chain
from jaxtl.train.store.identity import Identity, join_identities
from jaxtl.train.store.interface import interface
from jaxtl.train.store.log import join_curves, read_curves


class SourceRun:
    """Finished stages of another run, addressed by their names; its directory is only read.

    Args:
        directory: <workdir>/<experiment> of that run.
        seeds: this run's; each must be one of that run's.

    Attributes:
        stages: {name: (params, state)} of its finished stages that this run takes, NumPy leaves
            [seeds, ...], published ones [1, ...]; filled by `check`.
        blocks: {name: its finished blocks} of all its stages, likewise.

    Raises:
        ValueError: the directory holds no run.
    """

    def __init__(self, directory: Path, seeds: tuple[int, ...]):
        self.directory, self.seeds = directory.absolute(), seeds
        self.stages: dict[str, tuple[Params, State]] = {}
        self.blocks: dict[str, list[Block]] = {}
        if not (directory / "stages").is_dir():
            raise ValueError(
                f"run.source_run: {directory} holds no run; expected a directory "
                "<workdir>/<experiment> with stages/ in it"
            )

    def check(self, nodes: Mapping[str, Node], experiment: Experiment, arms: Iterable[str]) -> None:
        """Read the source stages (those that another stage follows) that the run holds.

        Raises:
            ValueError: it holds none of them, a seed is missing, parameters do not fit, or a
                checkpoint is damaged; all of it.
        """
        sources = {stage.name for arm in arms for stage in experiment.arms[arm][:-1]}
        for folder in sorted(p.parent for p in (self.directory / "stages").glob("*/stage.json")):
            if blocks := [block for block in blocks_of(folder) if block.record["finished"]]:
                self.blocks[folder.name] = blocks
        if not sources & self.blocks.keys():
            raise ValueError(
                f"run.source_run: {self.directory} has no finished stage among this experiment's "
                f"source stages ({', '.join(sorted(sources)) or 'none'}); it has finished "
                f"{', '.join(self.blocks) or 'none'}"
            )
        problems = []
        for name in sorted(sources & self.blocks.keys()):
            try:
                self.stages[name] = self._read(name, nodes)
            except ValueError as error:
                problems.append(f"run.source_run: stage {name!r} of {self.directory} {error}")
        if problems:
            raise ValueError("\n".join(problems))

    def check_point(self, name: str, setup: Setup, other: Setup, place: str) -> None:
        """Check that a point of a sweep can take what is loaded of a stage.

        Args:
            setup, other: of the stage as it is, and at the point.
            place: begins the message.

        Raises:
            ValueError: it cannot.
        """
        if (setup.params, setup.state) != (other.params, other.state):
            raise ValueError(
                f"{place}: stage {name!r} is loaded from another run, and its parameters have "
                "other shapes at this point"
            )

    def identity(self, name: str) -> Identity:
        """What a stage was there, for this run's seeds."""
        return join_identities(
            [block.record["identity"] for block in self.blocks[name]], self.seeds
        )

    def _read(self, name: str, nodes: Mapping[str, Node]) -> tuple[Params, State]:
        """(params, state) for this run's seeds.

        Raises:
            ValueError: how the stage's checkpoint fails; the message goes on from the stage's name.
        """
        blocks = self.blocks[name]
        seeds = [seed for block in blocks for seed in block.seeds]
        if missing := sorted(set(self.seeds) - set(seeds)):
            raise ValueError(f"lacks the seeds {missing}; it has {seeds}")
        setup, chain = nodes[name].setup, [nodes[name].setup.stage]
        while (parent := nodes[chain[0].name].parent) is not None:
            chain.insert(0, nodes[parent].setup.stage)
        memory = setup.state.method if setup.stage.method.remembers else None
        params, statistics = flatten(setup.params), flatten(setup.state.statistics)
        leaves = params | statistics
        stored, memory = restore_chain(self.directory, chain, self.seeds, leaves, memory)
        if lines := load_problems(leaves, {path: leaf[0] for path, leaf in stored.items()}, set()):
            raise ValueError("does not fit this model:\n  " + "\n  ".join(lines))
        classes = interface(setup)["classes"]
        for head, names in blocks[0].record.get("classes", {}).items():
            if head in classes and not _agree(names, classes[head]):
                raise ValueError(
                    f"numbers the classes of head {head!r} as {', '.join(names)}, this experiment "
                    f"as {', '.join(classes[head])}"
                )
        stored = {path: np.asarray(stored[path], leaf.dtype) for path, leaf in leaves.items()}
        params, statistics = (nest({p: stored[p] for p in part}) for part in (params, statistics))
        return params, State(statistics, memory)

    def as_loaded(self, nodes: Mapping[str, Node]) -> dict[str, Node]:
        """The nodes, where nothing is shared by all seeds that was trained there for each."""
        result: dict[str, Node] = {}
        for name, node in nodes.items():  # parents first
            shared = node.setup.shared
            if name in self.stages:
                leaves = flatten(self.stages[name][0])
                shared = frozenset(path for path in shared if leaves[path].shape[0] == 1)
            elif node.parent is not None:
                shared = shared & result[node.parent].setup.shared
            if shared != node.setup.shared:
                setup = dataclasses.replace(node.setup, shared=shared)
                node = dataclasses.replace(node, setup=setup)
            result[name] = node
        return result

    def load(self, setup: Setup) -> Trained:
        """The stage as that run left it, for this run's seeds."""
        params, state = self.stages[setup.stage.name]
        blocks = self.blocks[setup.stage.name]
        seeds = [seed for block in blocks for seed in block.seeds]
        rows = [seeds.index(seed) for seed in self.seeds]
        curves = join_curves(
            [read_curves(block.directory) for block in blocks],
            [len(block.seeds) for block in blocks],
        )
        curves = {key: v if key == "step" else v[:, rows] for key, v in curves.items()}
        failed: dict[str, int] = {}
        for block in blocks:
            failed |= block.record.get("failed_seeds", {})
        replicas = over_seeds(setup, self.seeds)
        steps = np.array([failed.get(replicas.describe(i), 0) for i in range(len(replicas))])
        return Trained(replicas, params, state, curves, 0.0, math.nan, math.nan, steps)


def _agree(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether two lists of class names number a head alike, or one of them only counts."""
    only_count = any(list(each) == list(map(str, range(len(each)))) for each in (names, others))
    return only_count or all(a == b for a, b in zip(names, others, strict=False))
