"""Purely functional transfer-learning research on JAX.

`jaxtl.load(run_dir)` is `jaxtl.export.predictor.load`.
"""

__version__ = "0.1.0"


def __getattr__(name: str):
    if name != "load":
        raise AttributeError(f"module 'jaxtl' has no attribute {name!r}")
    from jaxtl.export.predictor import load  # imports JAX, which `import jaxtl` does not

    return load
