"""Arms with other things measured."""

import dataclasses


def with_analyses(arm, **measured):
    """The arm with other things measured; None takes one away."""
    trees = {key: tree for key, tree in (arm.analyses | measured).items() if tree is not None}
    return dataclasses.replace(arm, analyses=trees)
