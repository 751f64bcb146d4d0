"""Gradients in which no example counts for more than a bound.

Arguments that all methods share are explained in `jaxtl.methods.transfer`.
"""

from jaxtl.methods.private.clipped import clipped, clipping
