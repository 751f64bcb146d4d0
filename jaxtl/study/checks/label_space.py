"""Classes by name: what reads one head reads it in one order, wherever its labels come from.

The first labelled domain that names a head, in the order of arms and stages, says which output is
which class; names that only later data have follow, as far as the head has outputs. Other
domains, evaluations and criteria get a label column numbered that way. Classes without names (those
of plain arrays) stand for positions.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from jaxtl.data import Dataset
from jaxtl.data.columns import Numbered
from jaxtl.paths import closest, matches
from jaxtl.plan import Criterion, Domain, Evaluation, Experiment, Head, Stage
from jaxtl.study.checks.domains import as_domain

SHOWN = 5

Space = Sequence[str]
Key = tuple[str, str | None]


class Column(NamedTuple):
    """A label column that is read for a head of classes.

    Attributes:
        head, name: of the head and of the column.
        classes: the column's class names.
        size: number of the head's outputs.
        key: of the head's label space: the head, and the stage that started it where a later one
            starts it anew.
    """

    head: str
    name: str
    classes: Space
    size: int
    key: Key


Columns = Callable[[Domain, str | None], list[Column]]


def match_classes(experiment: Experiment) -> tuple[Experiment, list[str]]:
    """(the experiment with every label column in the order of its head, what should be known).

    A stage that starts a head anew (`fresh`) may give it other classes; evaluations and criteria
    read heads as an arm's last stage has them. Data that cannot be read are left alone, for whoever
    checks them.

    Raises:
        ValueError: the classes of two datasets cannot be those of one head; all such cases.
    """
    heads, starters = _largest_heads(experiment), _starters(experiment)

    def columns(domain: Domain, stage: str | None) -> list[Column]:
        class_columns = []
        relabelled = not domain.labelled or domain.episodes is not None
        for name, column in () if relabelled else domain.heads.items():
            head = heads.get(name)
            if head is None or not head.integer:
                continue
            if (classes := _classes(domain.dataset, column)) is not None:
                key = (name, starters.get((stage, name), stage))
                class_columns.append(Column(name, column, classes, head.size, key))
        return class_columns

    spaces, notes = _join_spaces(experiment, columns)
    return _renumber(experiment, columns, spaces), notes


def _join_spaces(experiment: Experiment, columns: Columns) -> tuple[dict[Key, Space], list[str]]:
    """({key: the classes of a head}, what should be known)."""
    spaces: dict[Key, Space] = {}
    problems, notes = [], []
    for place, stage, domain in _readers(experiment):
        dataset = domain.dataset.name
        for head, _, classes, size, key in columns(domain, stage):
            space = spaces.get(key, classes)
            try:
                spaces[key] = _join(space, classes, size, notes, f"{place}, {dataset}")
            except ValueError as error:
                problems.append(f"{place}: dataset {dataset}, head {head!r}: {error}")
    if problems:
        raise ValueError("\n".join(dict.fromkeys(problems)))
    return spaces, list(dict.fromkeys(notes))


def _renumber(experiment: Experiment, columns: Columns, spaces: Mapping[Key, Space]) -> Experiment:
    """The experiment with every column numbered as its head's space is."""

    def renumber(domain: Domain, stage: str | None = None) -> Domain:
        dataset, heads = domain.dataset, dict(domain.heads)
        for head, column, classes, _, key in columns(domain, stage):
            space = tuple(spaces[key])
            if set(classes) <= set(space) and tuple(classes) != space:
                heads[head] = f"{column} as {head}"
                dataset = dataset.match_classes(column, space, heads[head])
        if dataset is domain.dataset:
            return domain
        return dataclasses.replace(domain, dataset=dataset, heads=heads)

    def renumber_stage(stage: Stage) -> Stage:
        domains = [renumber(domain, stage.name) for domain in stage.domains]
        data = {name: renumber(domain, stage.name) for name, domain in stage.data.items()}
        if domains == list(stage.domains) and data == dict(stage.data):
            return stage
        return dataclasses.replace(stage, domains=domains, data=data)

    def renumber_evaluation(evaluation: Evaluation) -> Evaluation:
        domain = renumber(as_domain(evaluation))
        if domain.dataset is evaluation.dataset:
            return evaluation
        column = domain.heads[evaluation.head]
        return dataclasses.replace(evaluation, dataset=domain.dataset, column=column)

    def renumber_criterion(criterion: Criterion) -> Criterion:
        return dataclasses.replace(criterion, domains=list(map(renumber, criterion.domains)))

    # Arms share a stage by identity.
    stages = {id(stage): renumber_stage(stage) for c in experiment.arms.values() for stage in c}
    return dataclasses.replace(
        experiment,
        arms={arm: [stages[id(stage)] for stage in c] for arm, c in experiment.arms.items()},
        evals={name: renumber_evaluation(e) for name, e in experiment.evals.items()},
        criteria={name: renumber_criterion(c) for name, c in experiment.criteria.items()},
    )


def _readers(experiment: Experiment) -> Iterator[tuple[str, str | None, Domain]]:
    """(place for messages, stage if it is one's, domain) of all that reads labels, training first.

    An evaluation is a domain here.
    """
    for chain in experiment.arms.values():
        for stage in chain:
            for domain in (*stage.domains, *stage.data.values()):
                yield f"stage {stage.name!r}", stage.name, domain
    for name, evaluation in experiment.evals.items():
        yield f"evaluation {name!r}", None, as_domain(evaluation)
    for name, criterion in experiment.criteria.items():
        for domain in criterion.domains:
            yield f"criterion {name!r}", None, domain


def _largest_heads(experiment: Experiment) -> dict[str, Head]:
    """{name: the head of this name with the most outputs}."""
    heads: dict[str, Head] = {}
    for stage in (stage for chain in experiment.arms.values() for stage in chain):
        for name, head in stage.model.heads.items():
            if name not in heads or heads[name].size < head.size:
                heads[name] = head
    return heads


def _starters(experiment: Experiment) -> dict[tuple[str | None, str], str | None]:
    """{(stage, head): the stage that started the head}, None for a head as its arm ends with it."""
    starters: dict[tuple[str | None, str], str | None] = {}
    lasting = set()
    for chain in experiment.arms.values():
        for i, stage in enumerate(chain):
            for head in stage.model.heads:
                starts = [0, *(j for j in range(1, len(chain)) if _is_fresh(chain[j], head))]
                start = max(j for j in starts if j <= i)
                starters[stage.name, head] = chain[start].name
                if start == starts[-1]:
                    lasting.add((stage.name, head))
    return starters | dict.fromkeys(lasting)


def _is_fresh(stage: Stage, head: str) -> bool:
    with contextlib.suppress(re.error):  # whoever resolves the stage says so
        return matches(stage.fresh, f"heads/{head}/kernel")
    return False


def _classes(dataset: Dataset, column: str) -> Space | None:
    """The names of a column's classes; None if it has none, or cannot be read."""
    with contextlib.suppress(ValueError):
        return dataset.table().classes.get(column)
    return None


def _join(space: Space, names: Space, size: int, notes: list[str], place: str) -> Space:
    """The classes of a head with those of one more dataset.

    Raises:
        ValueError: it has classes for which the head has no output.
    """
    new = [name for name in names if name not in space]
    if not new:
        if names != space and not isinstance(names, Numbered):
            missing = [name for name in space if name not in names]
            lacks = f"; it lacks {_some(missing)}" if missing else ""
            notes.append(f"{place}: classes are matched by name{lacks}")
        return space
    longest = max(len(names), len(space))
    unnamed = [isinstance(each, Numbered) for each in (names, space)]
    if any(unnamed) and len(new) == len(names) and longest <= size:
        named = space if isinstance(names, Numbered) else names
        notes.append(
            f"{place}: its classes and those of its head's other data are matched by position, as "
            f"one of them has no names: 0 is {named[0]!r}"
        )
        return (*named, *Numbered(longest)[len(named) :])
    if len(space) + len(new) <= size:
        return Numbered(len(space) + len(new)) if all(unnamed) else (*space, *new)
    near = closest(new[0], space, 1)
    raise ValueError(
        f"its classes {_some(new)} are not among {_some(space)}, which the head's other data have"
        + (f" (closest to {new[0]!r}: {near[0]!r})" if near else "")
        + "; rename them with `relabel`, leave them out with `only`, or use two heads"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
