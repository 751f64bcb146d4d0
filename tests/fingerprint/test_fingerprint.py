"""Equal digests for what computes the same numbers, other digests for what may not."""

import collections
import dataclasses
import enum
import functools
import importlib
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from sklearn.linear_model import Ridge

from jaxtl import data, models
from jaxtl.fingerprint import combined, of_jaxpr, of_program, of_value
from jaxtl.metrics import classification
from jaxtl.study.checks.measurable import metric_sums
from jaxtl.train.mesh import make_mesh

X = jnp.arange(3.0)
SHIFT = 1.0
OTHER_SHIFT = 2.0


def program(function, *args):
    return of_program(function, *(args or (X,)))


def code(source, name="f", **names):
    """A function that was defined by its source."""
    names["__name__"] = "exercise"
    exec(source, names)
    return names[name]


def weigh(weights, wrap=jax.jit, array=jnp.float32):
    weights = array(weights)
    return wrap(lambda x: x * weights)


def deep(weights):
    inner = weigh(weights)
    return jax.jit(lambda x: jax.jit(lambda y: inner(y) + 1)(x))


def scanned(weights):
    weights = np.float32(weights)
    return lambda x: jax.lax.scan(lambda c, _: (c * weights, None), x, None, 3)[0]


def branching(weights):
    inner = weigh(weights)
    return lambda x: jax.lax.cond(x[0] > 0, inner, lambda y: y, x)


def looping(weights):
    inner = weigh(weights)
    return lambda x: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: inner(y) + 1, x)


def with_gradient(weights):
    weights = jnp.float32(weights)

    @jax.custom_vjp
    def double(x):
        return 2 * x

    double.defvjp(lambda x: (2 * x, None), lambda _, g: (g * weights,))
    return double


def differentiated(weights):
    return jax.grad(lambda x: with_gradient(weights)(x).sum())


def called_back(number, send=jax.pure_callback):
    def host(x):
        return np.asarray(x) * np.float32(number)

    return lambda x: send(host, x, x)


def ordered(number):
    from jax.experimental import io_callback

    return called_back(number, functools.partial(io_callback, ordered=True))


def debugged(number):
    def f(x):
        jax.debug.callback(lambda y: y * number, x)
        return x

    return f


def mapped(number):
    @jax.custom_batching.custom_vmap
    def f(x):
        return x

    @f.def_vmap
    def rule(size, batched, x):
        return x * number, batched[0]

    return f


ONES, HEAVY = [1, 1, 1], [100, 1, 0]
BUILDERS = [weigh, deep, scanned, branching, looping, differentiated]
BUILDERS += [functools.partial(weigh, array=np.float32), functools.partial(weigh, wrap=jax.remat)]


@pytest.mark.parametrize("build", BUILDERS)
def test_a_constant_counts_wherever_it_stands(build):
    assert program(build(ONES)) == program(build(ONES))
    assert program(build(ONES)).digest != program(build(HEAVY)).digest
    assert program(build(ONES)).opaque == ()


@pytest.mark.parametrize("build", [called_back, ordered, debugged, mapped])
def test_what_a_program_calls_back_counts(build):
    assert program(build(3.0)) == program(build(3.0))
    assert program(build(3.0)).digest != program(build(4.0)).digest
    assert program(build(3.0)).opaque == ()


def test_a_rule_counts_only_where_it_is_used():
    assert program(with_gradient(ONES)) == program(with_gradient(HEAVY))


def kernel(number):
    pallas = pytest.importorskip("jax.experimental.pallas")

    def body(source, target):
        target[...] = source[...] * number

    shape = jax.ShapeDtypeStruct((3,), jnp.float32)
    return pallas.pallas_call(body, out_shape=shape, interpret=True)


def test_a_kernel_counts():
    assert program(kernel(2.0)) == program(kernel(2.0))
    assert program(kernel(2.0)).digest != program(kernel(3.0)).digest


SAME_PROGRAMS = {
    "names and lines": (
        code("def f(x):\n  '''One.'''\n  y = x * 2\n  return y + 1"),
        code("# a comment\n\ndef g(a):\n  b = a * 2\n\n  return b + 1", "g"),
    ),
    "jitted names": (jax.jit(code("f = lambda x: x + 1")), jax.jit(code("def f(y): return y + 1"))),
    "dead code": (lambda x: x + 1, lambda x: (x + 1, jnp.sin(x))[0]),
    "printing": (
        jax.jit(lambda x: x + 1),
        jax.jit(lambda x: (x + 1, jax.debug.print("{}", x.sum()))[0]),
    ),
    "sharding": (
        lambda x: x + 1,
        lambda x: jax.lax.with_sharding_constraint(
            x + 1, jax.sharding.SingleDeviceSharding(jax.devices()[0])
        ),
    ),
    "donation": (jax.jit(lambda x: x + 1), jax.jit(lambda x: x + 1, donate_argnums=0)),
}
OTHER_PROGRAMS = {
    "a literal": (lambda x: x + 1, lambda x: x + 2),
    "the sign of zero": (lambda x: jnp.float32(0.0) * x, lambda x: jnp.float32(-0.0) * x),
    "an axis": (lambda x: x.cumsum(0), lambda x: x.cumsum(0)[::-1]),
    "a parameter": (
        lambda x: jnp.sum(jnp.ones((2, 2)) * x[0], 0),
        lambda x: jnp.sum(jnp.ones((2, 2)) * x[0], 1),
    ),
    "wiring": (lambda x: x - jnp.sin(x), lambda x: jnp.sin(x) - x),
    "a dtype": (lambda x: x.astype(jnp.float16), lambda x: x.astype(jnp.bfloat16)),
    "a key": (
        lambda x: x + jax.random.normal(jax.random.key(0), (3,)),
        lambda x: x + jax.random.normal(jax.random.key(1), (3,)),
    ),
    "the order of results": (lambda x: (x, x + 1), lambda x: (x + 1, x)),
    "the name of a result": (lambda x: {"a": x}, lambda x: {"b": x}),
    "NaN payloads": tuple(
        functools.partial(lambda c, x: x + c, np.uint32([bits] * 3).view(np.float32))
        for bits in (0x7FC00000, 0x7FC00001)
    ),
    "closed-over keys": tuple(
        functools.partial(lambda k, x: x + jax.random.normal(k, (3,)), jax.random.key(seed))
        for seed in (0, 1)
    ),
    "a global that a callback reads": (
        lambda x: jax.pure_callback(lambda y: y + SHIFT, x, x),
        lambda x: jax.pure_callback(lambda y: y + OTHER_SHIFT, x, x),
    ),
}


@pytest.mark.parametrize("pair", SAME_PROGRAMS.values(), ids=SAME_PROGRAMS.keys())
def test_programs_that_compute_the_same(pair):
    assert program(pair[0]) == program(pair[1])


@pytest.mark.parametrize("pair", OTHER_PROGRAMS.values(), ids=OTHER_PROGRAMS.keys())
def test_programs_that_differ(pair):
    assert program(pair[0]).digest != program(pair[1]).digest


def test_arguments_count_by_type_not_by_value():
    def double(x):
        return 2 * x

    assert program(double, X) == program(double, X + 1)
    digests = [
        program(double, x).digest
        for x in (X, X.astype(jnp.float16), X[:2], jnp.asarray(1.0), 1.0, jnp.float32(1))
    ]
    assert len(set(digests)) == 5  # an asarray of a float and float32(1) are the same
    shape = jax.ShapeDtypeStruct((3,), jnp.float32)
    assert program(double, shape) == program(double, X)


def test_a_shared_program_is_digested_once():
    inner = jax.jit(lambda x: functools.reduce(lambda y, _: jnp.sin(y), range(20), x))

    def outer(x):
        for _ in range(12):
            x = jax.jit(lambda y: inner(inner(y)))(x)
        return x

    def doubled(depth):
        f = inner
        for _ in range(depth):
            f = jax.jit(functools.partial(lambda g, y: g(g(y)), f))
        return f

    assert program(outer).opaque == ()
    start = time.perf_counter()
    of_jaxpr(jax.make_jaxpr(doubled(30))(X))  # 2**30 calls, written out
    assert time.perf_counter() - start < 5


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass(frozen=True)
class Plain:
    number: float = 1.0
    table: dict = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def square(self):
        return self.number**2


class Slotted:
    __slots__ = ("number",)

    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        raise AssertionError("nobody compares")

    __hash__ = None

    def __repr__(self):
        raise AssertionError("nobody asks")


class Numbers(dict):
    pass


Pair = collections.namedtuple("Pair", "a b")


def closure(value):
    def f(x):
        return x * value

    return f


def class_of(source):
    return code(f"class Model:\n  '''About.'''\n  def call(self, x):\n    return {source}", "Model")


def even(n):
    return n == 0 or odd(n - 1)


def odd(n):
    return n != 0 and even(n - 1)


def computed():
    value = Plain(3.0)
    assert value.square == 9
    return value


def ring(last):
    items = [1, [2, [last]]]
    items[1][1].append(items)
    return items


SAME_VALUES = {
    "names, lines, docstrings": (
        code("def f(x):\n  '''One.'''\n  return x + 1"),
        code("\n\n# two\ndef g(x):\n  return x + 1", "g"),
    ),
    "layout": (
        code("def f(x):\n  y = [x, 1]  # why\n  return sum(y)"),
        code("def f(x):\n  y = [\n    x,\n    1,\n  ]\n\n\n  return sum(y)"),
    ),
    "nested docstrings": (
        code("def f(x):\n  def g(y):\n    '''One.'''\n    return y\n  return g(x)"),
        code("def f(x):\n  def h(y):\n    return y\n  return h(x)"),
    ),
    "annotations": (
        code("def f(x):\n  return x"),
        code("def f(x: int) -> float:\n  return x"),
    ),
    "renamed helpers": (
        code("def a(x): return x + 1\ndef f(x): return a(x)"),
        code("def b(x): return x + 1\ndef f(x): return b(x)"),
    ),
    "rebuilt closures": (closure(np.arange(3)), closure(np.arange(3))),
    "mapped": (jax.vmap(code("f = lambda x: x")), jax.vmap(code("def g(x): return x", "g"))),
    "cached properties": (Plain(3.0), computed()),
    "optax": (optax.adamw(1e-3), optax.adamw(1e-3)),
    "linen": (linen.Dense(3), linen.Dense(3)),
    "nnx": tuple(nnx.Linear(2, 3, rngs=nnx.Rngs(0)) for _ in range(2)),
    "sets": ({"b", "a", (1, 2)}, {(1, 2), "a", "b"}),
    "docstrings of classes": (class_of("x + 1"), class_of("x + 1  # more")),
    "cycles": (ring(3), ring(3)),
    "states": (np.random.RandomState(3), np.random.RandomState(3)),
}
OTHER_VALUES = {
    "None, False, 0, 0.0, '', ()": (None, False, 0, 0.0, -0.0, "", b"", (), [], {}, set(), ...),
    "numbers": (1, 1.0, True, 1j, "1", np.float32(1), np.float64(1), np.int32(1), Colour.RED),
    "arrays": tuple(
        kind(value)
        for kind in (jnp.asarray, np.asarray)
        for value in (np.float32([1, 2]), np.float32([[1, 2]]), np.int32([1, 2]), [1.0, 3.0])
    ),
    "weak types": (jnp.asarray(1.0), jnp.float32(1)),
    "keys": (jax.random.key(0), jax.random.key(1), jax.random.PRNGKey(1)),
    "dtypes": (np.dtype("f4"), np.dtype(">f4"), np.dtype("f8"), np.float32, jnp.float32),
    "containers": ((1, 2), [1, 2], (2, 1), (1, (2,)), ((1,), 2), {1: 2}, {1, 2}, Pair(1, 2)),
    "orders of a dict": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "classes of a dict": ({1: 2}, Numbers({1: 2}), collections.OrderedDict({1: 2})),
    "members": (Colour.RED, Colour.BLUE, "RED", 1),
    "paths": (Path("a"), Path("b"), "a"),
    "instances": (Plain(), Plain(2.0), Plain(1.0, {1: 2}), Slotted(1.0), Slotted(2.0)),
    "bound methods": (Slotted(1.0).__init__, Slotted(2.0).__init__, Slotted.__init__),
    "partials": tuple(
        functools.partial(pow, *args, **names)
        for args, names in [((1,), {}), ((2,), {}), ((1, 2), {}), ((1,), {"mod": 2})]
    ),
    "defaults": tuple(
        code(f"def f(x, {default}): return x") for default in ("y=1", "y=2", "*, y=1", "*, y=2")
    ),
    "closures": (closure(1.0), closure(2.0), closure(1), closure([1.0])),
    "nested code": tuple(
        code(f"def f(x):\n  def g(y): return y + {n}\n  return g(x)") for n in (1, 2, 1.0)
    ),
    "globals": (
        code("f = lambda x: x + shift", shift=1.0),
        code("f = lambda x: x + shift", shift=2.0),
        code("f = lambda x: x + shift"),
    ),
    "globals of nested code": tuple(
        code("def f(x):\n  return [shift + y for y in x]", shift=s) for s in (1.0, 2.0)
    ),
    "helpers": tuple(code(f"def g(x): return x + {n}\ndef f(x): return g(x)") for n in (1, 2)),
    "attributes": (code("f = lambda x: x.sum()"), code("f = lambda x: x.max()")),
    "builtins": (len, max, code("f = lambda x: len(x)"), code("f = lambda x: max(x)")),
    "operators": (code("f = lambda x: x + 1"), code("f = lambda x: x - 1")),
    "recursion": (even, odd),
    "methods": (class_of("x + 1"), class_of("x + 2")),
    "jitted": (jax.jit(lambda x: x), jax.jit(lambda x: x + 1), jax.vmap(lambda x: x + 1)),
    "axes": (jax.vmap(lambda x: x, 0), jax.vmap(lambda x: x, 1)),
    "caches": tuple(functools.lru_cache(code(f"f = lambda: {n}")) for n in (1, 2)),
    "optax": (optax.adam(1e-3), optax.adam(1e-2), optax.adamw(1e-3), optax.sgd(1e-3)),
    "schedules": tuple(optax.cosine_decay_schedule(1.0, steps) for steps in (10, 20)),
    "nnx": tuple(nnx.Linear(2, 3, rngs=nnx.Rngs(seed)) for seed in (0, 1)),
    "linen": (linen.Dense(3), linen.Dense(4), linen.Sequential([linen.Dense(3)])),
    "custom derivatives": (with_gradient(ONES), with_gradient(HEAVY)),
    "published": (jnp.sin, jnp.cos, np.sin, np.cos, np.sum, jax.nn.relu, jax.nn.gelu),
    "estimators": (Ridge(1.0), Ridge(2.0)),
    "modules": (np, jax, time, importlib),
    "states": (np.random.RandomState(0), np.random.RandomState(1), np.random.default_rng(0)),
    "cycles": (ring(3), ring(4)),
    "arrays of objects": (np.array([1, "a"], object), np.array([1, "b"], object)),
}


@pytest.mark.parametrize("pair", SAME_VALUES.values(), ids=SAME_VALUES.keys())
def test_values_that_are_the_same(pair):
    assert of_value(pair[0]) == of_value(pair[1])
    assert of_value(pair[0]).opaque == ()


@pytest.mark.parametrize("values", OTHER_VALUES.values(), ids=OTHER_VALUES.keys())
def test_values_that_differ(values):
    fingerprints = [of_value(value) for value in values]
    assert len({fingerprint.digest for fingerprint in fingerprints}) == len(values)
    assert {fingerprint.opaque for fingerprint in fingerprints} == {()}


class Raises:
    @property
    def __dict__(self):
        raise RuntimeError("no")


class RaisesAlways:
    def __getattribute__(self, name):
        raise SystemError(name)


def test_what_cannot_be_looked_into_is_said():
    stream = (i for i in "ab")
    assert of_value(closure(stream)).opaque == (
        "object of type builtins.generator in closure of f",
    )
    with Path(__file__).open() as file:
        for value in (file, stream, Raises(), RaisesAlways(), sys._getframe(), memoryview(b"a")):
            (words,) = of_value({"a": [value]}).opaque
            assert words.endswith("in the value")
    (words,) = of_value(Plain(stream)).opaque
    assert words == "object of type builtins.generator in attribute number of Plain"

    def traced(x):
        (words,) = of_value(closure(x)).opaque
        assert words == "traced value in closure of f"
        return x

    jax.make_jaxpr(traced)(X)
    assert combined(of_value(stream), 3).opaque == (
        "object of type builtins.generator in the value",
    )
    for value in (threading.RLock(), logging.getLogger()):  # which say nothing of numbers
        assert of_value(value).opaque == ()


def used_function(f):
    f(X)
    jax.jit(f)(X)


def used_dataset(evaluation):
    evaluation.dataset.table()
    evaluation.dataset.rows(0)


USES = {
    "jitted": (jax.jit(closure(2.0)), used_function),
    "custom derivatives": (with_gradient(ONES), lambda f: jax.grad(lambda x: f(x).sum())(X)),
    "cached": (functools.lru_cache(even), lambda f: f(4)),
    "linen": (linen.Dense(3), lambda module: module.init(jax.random.key(0), X)),
    "optax": (optax.adam(1e-3), lambda tx: tx.init(X)),
    "data": (classification(data.digits().test.classes([0, 1]).few(3), "head"), used_dataset),
}


@pytest.mark.parametrize(("value", "use"), USES.values(), ids=USES.keys())
def test_being_used_leaves_no_trace(value, use):
    before = of_value(value)
    use(value)
    assert of_value(value) == before
    assert before.opaque == ()


def test_a_long_chain_is_no_recursion():
    chain = None
    for _ in range(20_000):
        chain = [chain]
    assert of_value(chain).opaque == ()


def test_groups_that_call_each_other_are_told_apart():
    """Two rings with equal members, entered at different places."""

    def entered(source):
        text = "def a(n): return b(n) + 1\ndef b(n): return c(n) + 1\ndef c(n): return a(n) + 2\n"
        return of_value(code(text + source)).digest

    calls = [f"def f(n): return {names}" for names in ("(a, b)", "(b, a)", "(a, c)", "(c, a)")]
    assert len({entered(call) for call in calls}) == 4
    assert entered(calls[0]) == entered(calls[0])


HELPER = """
import numpy as np
SCALE = {scale}
def scale(x):
    '''{doc}'''
    return np.asarray(x) * SCALE
def unused(x):
    return x + {unused}
"""
USERS = {
    "a global module": "import {name}\ndef f(x): return {name}.scale(x)",
    "a global function": "from {name} import scale\ndef f(x): return scale(x)",
    "an import inside": "def f(x):\n  import {name} as m\n  return m.scale(x)",
    "a function from inside": "def f(x):\n  from {name} import scale\n  return scale(x)",
}


@pytest.mark.parametrize("source", USERS.values(), ids=USERS.keys())
def test_modules_of_ones_own_are_followed(source, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def digest(**changes):
        values = {"scale": 1.0, "doc": "One.", "unused": 1} | changes
        (tmp_path / "helping_module.py").write_text(HELPER.format(**values))
        sys.modules.pop("helping_module", None)
        importlib.invalidate_caches()
        fingerprint = of_value(code(source.format(name="helping_module")))
        assert fingerprint.opaque == ()
        return fingerprint.digest

    assert digest() == digest(doc="Two.\n", unused=2)
    assert digest() != digest(scale=2.0)


def test_an_import_that_fails_is_opaque_or_absent():
    absent = of_value(code("def f():\n  import no_such_module_anywhere"))
    assert absent.opaque == ()
    assert absent != of_value(code("def f():\n  import no_other_module_anywhere"))


SCRIPT = """
import collections, functools, jax, jax.numpy as jnp, numpy as np, optax
from flax import linen, nnx
from flax.core import freeze
from jaxtl import losses
from jaxtl.fingerprint import combined, of_program
frozen = freeze({"a": 1, "b": {"c": 2}})
hash(frozen)
def host(x, names=frozenset({"x", "y", "z"})):
    return np.asarray(x) if {"a", "b", "c"} & names else losses.coral(x, x)
print(combined(of_program(lambda x: jax.pure_callback(host, x, x), jnp.ones(3)), {"u", "v"}, host,
      frozen, optax.adam(optax.cosine_decay_schedule(1.0, 3)), linen.Dense(3, dtype=jnp.float16)))
"""


def test_another_process_finds_the_same(capsys):
    exec(SCRIPT, {"__name__": "__main__"})
    other = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout == capsys.readouterr().out
    assert "opaque=()" in other.stdout


@pytest.mark.parametrize("devices", [1, 8])
def test_a_mesh_around_a_trace_leaves_no_trace(devices):
    evaluation = classification(data.arrays(np.zeros((6, 3)), np.arange(6) % 3), "y")

    def sums():
        return metric_sums(evaluation, models.classes(3))

    expected = of_program(sums)
    with jax.set_mesh(make_mesh(f"data={devices}")):
        assert of_program(sums) == expected
