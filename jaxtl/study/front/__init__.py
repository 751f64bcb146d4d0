"""The front door for programs and notebooks: `jaxtl.run`, `jaxtl.open` and what they give."""
