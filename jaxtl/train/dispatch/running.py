"""A stage while it trains: its state, advanced by compiled calls.

Either all replicas are one call, or each has its own calls of a program of one replica, in threads.
Those do not wait for each other: a replica goes on as soon as its last call is done. The numbers of
a replica are those of its program, whatever the number of threads.
"""

import concurrent.futures
import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.models.programs import cores
from jaxtl.plan import PyTree
from jaxtl.train.dispatch.programs import Program
from jaxtl.train.feed.examples import Feed
from jaxtl.train.mesh import on_all_devices
from jaxtl.train.resolve.replicas import replica
from jaxtl.train.state import Best, TrainState


class Together:
    """All replicas in one call.

    Attributes:
        train: the state after the calls so far; set it where something else changes it.
    """

    def __init__(self, program: Program, train: TrainState):
        self.train, self._program, self._compiled = train, program, None

    def compile(self, rows: Feed, block: np.ndarray) -> None:
        """Before the first call, on rows and indices of the shapes of all that follow."""
        args = self._arguments(rows, block, 0, 0)
        self._compiled = self._program.compile(*args)

    def advance(self, rows: Feed, block: np.ndarray, first: int, count: int) -> Mapping[str, Any]:
        """Begin up to `schedule.steps` steps.

        Args:
            rows, block: as `pages` yields them.
            first: the first step.
            count: how many.

        Returns:
            Their metrics {name: [replicas, steps]}, on which to wait.
        """
        carry, metrics = self._compiled(*self._arguments(rows, block, first, count))
        self.train = carry._replace(frozen=self.train.frozen, best=self.train.best)
        return metrics

    def keep(self, best: Best | None) -> None:
        """Let the state have these best parameters."""
        self.train = self.train._replace(best=best)

    def memory_mb(self) -> float | None:
        """What a call needs, where the backend tells."""
        if not (sizes := self._compiled.memory_analysis()):
            return None
        size = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes
        return round((size + sizes.output_size_in_bytes - sizes.alias_size_in_bytes) / 2**20, 3)

    def _arguments(self, rows: Feed, block: np.ndarray, first: int, count: int) -> tuple:
        replicas, train = self._program.replicas, self.train
        numbers = np.int32(replicas.seeds), dict(replicas.values), block
        return train.carry, train.frozen, rows, *numbers, np.int32(first), np.int32(count)


class Apart:
    """A call for each replica, in threads.

    Attributes:
        train: as that of `Together`.
        threads: calls that run at a time, at most one for each core.
    """

    def __init__(self, program: Program, train: TrainState):
        self._program, self._compiled = program, None
        self.threads = min(len(program.replicas), cores())
        self._pool = concurrent.futures.ThreadPoolExecutor(self.threads, "replica")
        self._rows: tuple[Feed | None, list[Feed]] = None, []
        self.train = train

    @property
    def train(self) -> TrainState:
        """The state after the calls so far, which are waited for; set it where it changes."""
        if self._whole is None:
            carries = [call.result()[0] for call in self._calls]
            carry = jax.tree.map(_stack, *carries)
            self._whole = carry._replace(**self._rest)
        return self._whole

    @train.setter
    def train(self, train: TrainState) -> None:
        count, carry = len(self._program.replicas), train.carry
        self._rest = {"frozen": train.frozen, "best": train.best}
        self._frozen = [_part(train.frozen, i) for i in range(count)]
        # The calls take over the memory of their parts, which must be no one else's.
        parts = [_part(carry, i, may_alias=False) for i in range(count)]
        self._calls = [_done((part, {})) for part in jax.block_until_ready(parts)]
        self._whole = None
        for leaf in jax.tree.leaves(carry):  # as if a call had taken it over
            leaf.delete()

    def keep(self, best: Best | None) -> None:
        """As that of `Together`."""
        self._rest["best"] = best
        if self._whole is not None:
            self._whole = self._whole._replace(best=best)

    def compile(self, rows: Feed, block: np.ndarray) -> None:
        """As that of `Together`."""
        args = self._arguments(0, self._calls[0].result()[0], rows, block, 0, 0)
        self._compiled = self._program.compile(*args)

    def advance(self, rows: Feed, block: np.ndarray, first: int, count: int) -> Mapping[str, Any]:
        """As that of `Together`."""
        rest = (rows, block, first, count)
        self._whole = None
        self._calls = [
            self._pool.submit(self._call, i, call, *rest) for i, call in enumerate(self._calls)
        ]
        return Metrics(self._calls)

    def memory_mb(self) -> float | None:
        """What the calls need at a time, where the backend tells."""
        if not (sizes := self._compiled.memory_analysis()):
            return None
        shared = sum(leaf.nbytes for leaf in jax.tree.leaves(self._rows[1][0].shared))
        each = sizes.argument_size_in_bytes - shared
        each += sizes.output_size_in_bytes - sizes.alias_size_in_bytes
        size = shared + len(self._calls) * each + self.threads * sizes.temp_size_in_bytes
        return round(size / 2**20, 3)

    def close(self) -> None:
        """Wait for the calls that have begun; those that have not never do."""
        self._pool.shutdown(cancel_futures=True)

    def _call(self, number: int, before: concurrent.futures.Future, *rest: Any) -> tuple:
        """(carry, metrics) of one replica, once the call before is done."""
        carry, _ = before.result()
        result = self._compiled(*self._arguments(number, carry, *rest))
        carry, metrics = jax.block_until_ready(result)
        return carry, jax.tree.map(np.asarray, metrics)

    def _arguments(
        self, number: int, carry: PyTree, rows: Feed, block: np.ndarray, first: int, count: int
    ) -> tuple:
        replicas = self._program.replicas
        values = {field: column[number] for field, column in replicas.values.items()}
        numbers = np.int32(replicas.seeds[number]), values, block[number]
        rows = self._rows_of(rows)[number]
        return carry, self._frozen[number], rows, *numbers, np.int32(first), np.int32(count)

    def _rows_of(self, rows: Feed) -> list[Feed]:
        """What each replica gathers from; a feed that stays on the device is cut once."""
        latest, parts = self._rows
        if latest is not rows:
            parts = [
                Feed(rows.shared, _part(rows.per_replica, i))
                for i in range(len(self._program.replicas))
            ]
            self._rows = rows, parts
        return parts


class Metrics(Mapping):
    """{name: [replicas, steps]} of calls that are waited for when something is read."""

    def __init__(self, calls: list[concurrent.futures.Future]):
        self._calls = calls

    @functools.cached_property
    def _values(self) -> dict[str, np.ndarray]:
        each = [call.result()[1] for call in self._calls]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *each)

    def block_until_ready(self) -> "Metrics":
        """By which `jax.block_until_ready` waits for it."""
        concurrent.futures.wait(self._calls)
        return self

    def __getitem__(self, name: str) -> np.ndarray:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@contextlib.contextmanager
def running(program: Program, train: TrainState) -> Iterator[Together | Apart]:
    """A stage that trains until the end of this context."""
    if program.schedule.seeds != "threads":
        yield Together(program, train)
        return
    with contextlib.closing(Apart(program, train)) as calls:
        yield calls


def _part(tree: PyTree, number: int, may_alias: bool | None = None) -> PyTree:
    """The leaves of one replica, on the device; without a copy if they may be a part of others."""
    leaves = replica(jax.tree.map(_readable, tree), number)
    return jax.device_put(leaves, on_all_devices(), may_alias=may_alias)


def _stack(*leaves: jax.Array) -> jax.Array:
    """[replicas, ...] of the leaves of each."""
    stack = np.stack if isinstance(_readable(leaves[0]), np.ndarray) else jnp.stack
    return jax.device_put(stack([_readable(leaf) for leaf in leaves]), on_all_devices())


def _readable(leaf: Any) -> Any:
    """An array as one of NumPy, which is cut without being compiled; random keys as they are."""
    return leaf if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended) else np.asarray(leaf)


def _done(result: Any) -> concurrent.futures.Future:
    future = concurrent.futures.Future()
    future.set_result(result)
    return future
