"""The shape of a stage, for methods that are called outside of one."""

from jaxtl.plan import StageShape

SHAPE = StageShape(("source", "target"), (100, 100), {"task": 3}, 6)
