"""One program for any mesh: where arrays live.

There is always a mesh, even of one device. Its axis `data` shards the examples of a batch, its axis
`model` shards parameters and optimizer state; what gathers and reduces, XLA inserts. The datasets
themselves are on every device, so that gathering a batch by index moves nothing between them.
"""

import contextlib
import math
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtl.plan import PyTree

AXES = ("data", "model")
SMALL = 2**12
"""Leaves of fewer numbers a seed are replicated."""


def make_mesh(text: str = "") -> Mesh:
    """The mesh of a run.

    Args:
        text: sizes such as `data=4,model=2`; an axis that is not named has size 1. Empty: all
            devices along `data`, but one CPU device, unless there are several processes.

    Raises:
        ValueError: not of that form, or not as many devices as there are.
    """
    devices = jax.devices()
    if not text:
        alone = jax.default_backend() == "cpu" and jax.process_count() == 1
        text = f"data={1 if alone else len(devices)}"
    sizes = dict.fromkeys(AXES, 1)
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name not in AXES or not size.isdigit() or int(size) < 1:
            raise ValueError(
                f"run.mesh={text}: expected sizes of data and model, as in data=4,model=2"
            )
        sizes[name] = int(size)
    count = math.prod(sizes.values())
    if count > len(devices) or (jax.process_count() > 1 and count != len(devices)):
        raise ValueError(f"run.mesh={text} needs {count} devices, there are {len(devices)}")
    shape = tuple(sizes.values())
    return jax.make_mesh(shape, AXES, (AxisType.Auto,) * len(AXES), devices=devices[:count])


def check_batch(mesh: Mesh, name: str, batch_size: int) -> None:
    """Raises ValueError if a batch cannot be split evenly along `data`."""
    parts = mesh.shape["data"]
    if batch_size % parts:
        raise ValueError(
            f"stage {name!r}: a batch of {batch_size} cannot be split over {parts} devices; change "
            "the batch size, or name fewer in --run.mesh=data=..."
        )


def current_mesh() -> Mesh:
    """The mesh of `jax.set_mesh`, or that of the default device alone."""
    mesh = jax.sharding.get_mesh()
    return make_mesh("data=1") if mesh.empty else mesh


def on_all_devices() -> NamedSharding:
    """Whole on each device of the mesh, for arrays that are equal in all processes."""
    return NamedSharding(current_mesh(), P())


def shard_state(tree: PyTree, mesh: Mesh | None = None) -> PyTree:
    """Shardings of parameters, optimizer state and the like.

    Args:
        tree: leaves (or shapes) with a leading axis of seeds.
        mesh: the current one if None; a traced program must be told.

    Returns:
        The tree of shardings: the largest later axis that the size of `model` divides is split
        along `model`; small leaves are replicated.
    """
    mesh = mesh or current_mesh()
    parts = mesh.shape["model"]

    def spec(leaf) -> NamedSharding:
        axes = [i for i in range(1, leaf.ndim) if leaf.shape[i] % parts == 0]
        if parts == 1 or not axes or math.prod(leaf.shape[1:]) < SMALL:
            return NamedSharding(mesh, P())
        axis = max(axes, key=lambda i: leaf.shape[i])
        return NamedSharding(mesh, P(*(None,) * axis, "model"))

    return jax.tree.map(spec, tree)


def place(tree: PyTree, *, donated: bool = False) -> PyTree:
    """A tree of leaves with a leading axis of seeds on the devices, as `shard_state` says.

    Args:
        donated: whether a program will take over its memory, which therefore must not be that of a
            NumPy array; without it, a CPU device may use the arrays as they are.
    """
    return jax.device_put(tree, shard_state(tree), may_alias=False if donated else None)


def shard_batch(mesh: Mesh, batch: PyTree) -> PyTree:
    """Constrain leaves [batch, ...] of a traced program to be split along `data`."""
    if mesh.size == 1:
        return batch
    sharding = NamedSharding(mesh, P("data"))
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, sharding), batch)


def to_host(tree: PyTree, *, copied: bool = False) -> PyTree:
    """Arrays as NumPy arrays, wherever they are, in every process.

    Args:
        copied: in memory of their own, also where a CPU is the device.
    """

    def fetch(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):  # a key of random numbers
            return leaf
        if jax.process_count() == 1 or not isinstance(leaf, jax.Array) or leaf.is_fully_replicated:
            array = np.asarray(leaf)
        else:
            from jax.experimental import multihost_utils

            array = multihost_utils.process_allgather(leaf, tiled=True)
        return array if array.flags.owndata or not copied else array.copy()

    return jax.tree.map(fetch, tree)


def is_primary() -> bool:
    """Whether this process writes the files that all processes share."""
    return jax.process_index() == 0


@contextlib.contextmanager
def in_primary(context: contextlib.AbstractContextManager) -> Iterator[None]:
    """Enter a context in the primary process; the others hear whether it could.

    Raises:
        ValueError: in the others, what entering raised in the primary one.
    """
    with contextlib.ExitStack() as stack:
        refusal = None
        if is_primary():
            try:
                stack.enter_context(context)
            except Exception as error:
                refusal = error
        text = from_primary("" if refusal is None else str(refusal) or repr(refusal))
        if refusal is not None:
            raise refusal
        if text:
            raise ValueError(text)
        yield


def from_primary(text: str) -> str:
    """The primary process's text, in all, who must all ask; cut after 4096 bytes."""
    if jax.process_count() == 1:
        return text
    from jax.experimental import multihost_utils

    content = np.frombuffer(text.encode()[:4096].ljust(4096, b"\0"), np.uint8)
    content = np.asarray(multihost_utils.broadcast_one_to_all(content))
    return content.tobytes().rstrip(b"\0").decode(errors="replace")
