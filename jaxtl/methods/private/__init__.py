"""Gradients in which no example counts for more than a bound."""

from jaxtl.methods.private.clipped import clipped, clipping

__all__ = ["clipped", "clipping"]
