"""A digest of objects that refer to each other: by what they hold, never by where they lie."""

import hashlib
import struct
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

Part = bytes | int
MOST_NESTED = 8

LEAVES: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"none",
    type(...): lambda value: b"ellipsis",
    type(NotImplemented): lambda value: b"notimplemented",
    bool: lambda value: b"bool %d" % value,
    int: lambda value: b"int %x" % value,
    float: lambda value: b"float" + struct.pack(">d", value),
    complex: lambda value: b"complex" + struct.pack(">dd", value.real, value.imag),
    str: lambda value: b"str" + value.encode("utf8", "surrogatepass"),
    bytes: lambda value: b"bytes" + value,
}


def text(*words: str) -> bytes:
    return b"\0".join(word.encode("utf8", "surrogatepass") for word in words)


def leaf(value: Any, depth: int = 0) -> bytes | None:
    """The bytes of a value that refers to nothing else; None if it may."""
    kind = type(value)
    if encode := LEAVES.get(kind):
        return encode(value)
    if kind is tuple and depth < MOST_NESTED:
        items = [leaf(item, depth + 1) for item in value]
        return None if None in items else b"tuple" + b"".join(b"%d:%b" % (len(i), i) for i in items)
    if issubclass(kind, np.dtype):
        return b"dtype" + text(str(value))
    if issubclass(kind, np.generic) and kind is not np.object_:
        return b"scalar" + text(str(value.dtype)) + b"\0" + value.tobytes()
    return None


class Unordered(list):
    """Parts whose order says nothing."""


class Graph:
    """Objects and what they refer to, each described once.

    Args:
        describe: (graph, object, where it was met, in words) -> its parts: bytes, and the numbers
            of the objects that it refers to.
    """

    def __init__(self, describe: Callable[["Graph", Any, str], Sequence[Part]]):
        self.opaque: set[str] = set()
        self._describe = describe
        self._numbers: dict[Hashable, int] = {}
        self._waiting: list[tuple[int, Any, str]] = []
        self._parts: list[Sequence[Part]] = []
        self._alive: list[Any] = []  # an id means an object as long as the object lives

    def part(self, value: Any, where: str, key: Hashable | None = None) -> Part:
        """What a description says of a value: its bytes, or the number of an object.

        Args:
            key: what tells the object from others, if its address does not.
        """
        if key is None:
            encoded = leaf(value)
            if encoded is not None:
                return encoded
            key = id(value)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._parts)
            self._parts.append(())
            self._alive.append(value)
            self._waiting.append((number, value, where))
        return number

    def digest(self, value: Any, where: str) -> str:
        """16 hexadecimal digits, equal for values that unfold to equal trees of descriptions."""
        root = self.part(value, where)
        while self._waiting:
            number, waiting, place = self._waiting.pop()
            self._parts[number] = self._describe(self, waiting, place)
        if isinstance(root, bytes):
            return hashlib.sha256(root).hexdigest()[:16]
        digests: dict[int, bytes] = {}
        for members in components(root, self._children):
            self._digest(members, digests)
        return digests[root].hex()[:16]

    def _children(self, number: int) -> Iterator[int]:
        return (part for part in self._parts[number] if isinstance(part, int))

    def _digest(self, members: Sequence[int], digests: dict[int, bytes]) -> None:
        """Add the digests of objects that all refer to each other, or of a single one."""
        alone = len(members) == 1 and members[0] not in self._parts[members[0]]
        if not alone:
            digests.update(dict.fromkeys(members, b"cycle".ljust(32)))
        # Two graphs of n objects that differ do so in trees of 2 n levels (Moore, 1956).
        for _ in range(1 if alone else 2 * len(members)):
            digests.update({member: self._hash(member, digests) for member in members})

    def _hash(self, number: int, digests: dict[int, bytes]) -> bytes:
        parts = [
            b"%d:%b" % (len(part), part) if isinstance(part, bytes) else b"@" + digests[part]
            for part in self._parts[number]
        ]
        if isinstance(self._parts[number], Unordered):
            parts.sort()
        return hashlib.sha256(b"".join(parts)).digest()


def components(root: int, children: Callable[[int], Iterable[int]]) -> Iterator[list[int]]:
    """The sets of nodes that reach each other, what is referred to first (Tarjan, 1972).

    Without recursion: a chain of objects may be longer than Python's stack.
    """
    order: dict[int, int] = {}
    lowest: dict[int, int] = {}
    stack: list[int] = []
    closed: set[int] = set()
    path: list[tuple[int, Iterator[int]]] = []

    def enter(node: int) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        path.append((node, iter(children(node))))

    enter(root)
    while path:
        node, remaining = path[-1]
        child = next((child for child in remaining if child not in closed), None)
        if child is None:
            path.pop()
            if path:
                lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[node])
            if lowest[node] == order[node]:
                members = [stack.pop()]
                while members[-1] != node:
                    members.append(stack.pop())
                closed.update(members)
                yield members
        elif child in order:
            lowest[node] = min(lowest[node], order[child])
        else:
            enter(child)
