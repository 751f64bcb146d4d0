"""Purely functional transfer-learning research on JAX.

jaxtl.run(experiment, seeds=5)   train and measure it: jaxtl.study.front.call.run
jaxtl.open(run_dir)              a finished run:       jaxtl.study.front.call.open_run
jaxtl.load(run_dir)              one trained model:    jaxtl.export.predictor.load
jaxtl.compare([run_dir, ...])    runs side by side:    jaxtl.study.front.across.compare.compare
jaxtl.Result                     what the first two give
"""

__version__ = "0.1.0"

_PLACES = {
    "run": ("jaxtl.study.front.call", "run"),
    "open": ("jaxtl.study.front.call", "open_run"),
    "load": ("jaxtl.export.predictor", "load"),
    "compare": ("jaxtl.study.front.across.compare", "compare"),
    "Result": ("jaxtl.study.front.result", "Result"),
    "Stopped": ("jaxtl.study.front.call", "Stopped"),
}


def __getattr__(name: str):
    if name not in _PLACES:
        raise AttributeError(f"module 'jaxtl' has no attribute {name!r}")
    import importlib  # what it imports needs JAX, which `import jaxtl` does not

    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
