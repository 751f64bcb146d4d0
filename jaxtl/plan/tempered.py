"""In which proportions groups of examples are drawn: tasks of very different size, or classes."""

import dataclasses
from typing import Annotated

from jaxtl.form import Limit, checked

Temperature = Annotated[float, Limit("{} of at least 1", lambda value: value >= 1)]


@dataclasses.dataclass(frozen=True)
@checked
class Tempered:
    """Rows drawn from groups with probabilities proportional to size^(1 / temperature).

    For each example of a batch a group is drawn, independently, and the next row of it: a group's
    rows are shuffled anew each time all have been drawn. With q_g the probabilities, the expected
    supervised objective is sum_g q_g * (the mean loss of group g's rows), of which the batch's is
    an unbiased estimate; so a task that is drawn a tenth of the time counts a tenth.

    Attributes:
        groups: label column whose classes are the groups, such as the "task" of `data.together`.
        temperature: 1 draws all rows alike, infinity all groups alike (of classes: balanced
            sampling); multilingual models use 2 to 5 (Conneau et al., 2020, arXiv:1911.02116,
            exponent 0.3; Raffel et al., 2020, arXiv:1910.10683, Section 3.5.2).
    """

    groups: str = "task"
    temperature: Temperature = 1.0
