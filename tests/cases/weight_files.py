"""Files as dicts of arrays, read and written by the entries of a scheme."""

import jax
import numpy as np

from jaxtl.paths import flatten, nest


def leaves(model, inputs):
    """{path: shape} of the backbone."""
    params = flatten(jax.eval_shape(model.init, jax.random.key(0), inputs)[0])
    return {path: leaf.shape for path, leaf in params.items() if path.startswith("backbone/")}


def read(scheme, wanted, file):
    """Parameters as a model takes them, each of the shape that it wants."""
    entries, found = scheme.entries(wanted), {}
    assert entries.keys() == wanted.keys(), wanted.keys() - entries.keys()
    for path, entry in entries.items():
        array = np.split(file[entry.name], entry.parts)[entry.part]
        found[path] = entry.layout.read(array)
        adapt = scheme.adapt.get(path)
        if adapt is not None and found[path].shape != wanted[path]:
            found[path] = adapt(found[path], wanted[path])
        assert found[path].shape == wanted[path], path
    return nest(found)


def written(scheme, params):
    """{name: array}, the inverse of `read`."""
    flat = flatten(params)
    parts = {}
    for path, entry in scheme.entries(flat).items():
        parts.setdefault(entry.name, {})[entry.part] = entry.layout.write(flat[path])
    return {name: np.concatenate([p[i] for i in sorted(p)]) for name, p in parts.items()}


def titled(schemes, name):
    (found,) = (scheme for scheme in schemes if scheme.name == name)
    return found
