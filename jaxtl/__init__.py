"""Purely functional transfer-learning research on JAX.

jaxtl.load(run_dir)              one trained model:    jaxtl.export.predictor.load
jaxtl.compare([run_dir, ...])    runs side by side:    jaxtl.study.front.across.compare.compare
"""

__version__ = "0.1.0"

_PLACES = {
    "load": ("jaxtl.export.predictor", "load"),
    "compare": ("jaxtl.study.front.across.compare", "compare"),
}


def __getattr__(name: str):
    if name not in _PLACES:
        raise AttributeError(f"module 'jaxtl' has no attribute {name!r}")
    import importlib  # what it imports needs JAX, which `import jaxtl` does not

    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
