"""Classes by name: what reads one head reads it in one order, wherever its labels come from.

The first labelled domain that names a head, in the order of arms and stages, says which output is
which class; names that only later data have follow, as far as the head has outputs. Other
domains, evaluations and criteria get a label column numbered that way. Classes without names (those
of plain arrays) stand for positions.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxtl.data import Dataset
from jaxtl.data.columns import Numbered
from jaxtl.paths import closest, matches
from jaxtl.plan import Criterion, Domain, Evaluation, Experiment, Head, Stage

SHOWN = 5

Space = Sequence[str]
Key = str | tuple[str, str]


def match_classes(experiment: Experiment) -> tuple[Experiment, list[str]]:
    """(the experiment with every label column in the order of its head, what should be known).

    A stage that starts a head anew (`fresh`) may give it other classes; evaluations and criteria
    read heads as an arm's last stage has them. Data that cannot be read are left alone, for whoever
    checks them.

    Raises:
        ValueError: the classes of two datasets cannot be those of one head; all such cases.
    """
    spaces: dict[Key, Space] = {}
    problems: list[str] = []
    notes: list[str] = []
    uses = list(_uses(experiment))
    for use in uses:
        names = _names(use.dataset, use.column)
        if names is None:
            continue
        if use.key not in spaces:
            spaces[use.key] = names
            continue
        try:
            where = f"{use.place}, {use.dataset.name}"
            spaces[use.key] = _joined(spaces[use.key], names, use.head.size, notes, where)
        except ValueError as error:
            problems.append(f"{use.place}: dataset {use.dataset.name}, head {use.name!r}: {error}")
    if problems:
        raise ValueError("\n".join(dict.fromkeys(problems)))
    numbered = {
        (use.place, id(use.holder), use.name): tuple(spaces[use.key])
        for use in uses
        if use.key in spaces and _is_renumbered(use, spaces[use.key])
    }
    return _replaced(experiment, numbered), list(dict.fromkeys(notes))


class Use(NamedTuple):
    """A label column that is read for a head.

    Attributes:
        place: for messages.
        holder: the `Domain` or `Evaluation`.
        key: of the label space: the head's name, or (name, stage) of a head that a later stage
            starts anew.
        name, head: the head.
    """

    place: str
    holder: Any
    dataset: Dataset
    column: str
    key: Key
    name: str
    head: Head


def _uses(experiment: Experiment) -> Iterator[Use]:
    """All labels of classes that are read, training first."""
    last: dict[str, set[str]] = {}  # heads that a stage has as an arm's last stage has them
    first: dict[tuple[str, str], str] = {}  # where a head of a stage was started
    heads: dict[str, Head] = {}
    for chain in experiment.arms.values():
        for i, stage in enumerate(chain):
            for name, head in stage.model.heads.items():
                starts = [j for j in range(1, i + 1) if _is_fresh(chain[j], name)]
                first[stage.name, name] = chain[max(starts, default=0)].name
                if not any(_is_fresh(later, name) for later in chain[i + 1 :]):
                    last.setdefault(stage.name, set()).add(name)
                if name not in heads or heads[name].size < head.size:
                    heads[name] = head

    def of_domain(place: str, domain: Domain, stage: str | None) -> Iterator[Use]:
        for name, column in domain.heads.items() if domain.labelled else ():
            if name in heads and heads[name].integer:
                started_anew = stage is not None and name not in last.get(stage, ())
                key = (name, first.get((stage, name))) if started_anew else name
                yield Use(place, domain, domain.dataset, column, key, name, heads[name])

    for chain in experiment.arms.values():
        for stage in chain:
            for domain in (*stage.domains, *stage.data.values()):
                yield from of_domain(f"stage {stage.name!r}", domain, stage.name)
    for name, evaluation in experiment.evals.items():
        columns = {evaluation.head: evaluation.column}
        domain = Domain(evaluation.dataset, columns)
        for use in of_domain(f"evaluation {name!r}", domain, None):
            yield use._replace(holder=evaluation)
    for name, criterion in experiment.criteria.items():
        for domain in criterion.domains:
            yield from of_domain(f"criterion {name!r}", domain, None)


def _is_fresh(stage: Stage, head: str) -> bool:
    with contextlib.suppress(re.error):  # whoever resolves the stage says so
        return matches(stage.fresh, f"heads/{head}/kernel")
    return False


def _names(dataset: Dataset, column: str) -> Space | None:
    """The names of a column's classes; None if it has none, or cannot be read."""
    with contextlib.suppress(ValueError):
        return dataset.table().classes.get(column)
    return None


def _joined(space: Space, names: Space, size: int, notes: list[str], place: str) -> Space:
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
    by_position = isinstance(names, Numbered) or isinstance(space, Numbered)
    if by_position and len(new) == len(names) and longest <= size:
        named = space if isinstance(names, Numbered) else names
        notes.append(
            f"{place}: its classes and those of its head's other data are matched by position, as "
            f"one of them has no names: 0 is {named[0]!r}"
        )
        return (*named, *Numbered(longest)[len(named) :])
    if len(space) + len(new) <= size:
        return Numbered(len(space) + len(new)) if _numbers(space, names) else (*space, *new)
    near = closest(new[0], space, 1)
    raise ValueError(
        f"its classes {_some(new)} are not among {_some(space)}, which the head's other data have"
        + (f" (closest to {new[0]!r}: {near[0]!r})" if near else "")
        + "; rename them with `relabel`, leave them out with `only`, or use two heads"
    )


def _numbers(space: Space, names: Space) -> bool:
    return isinstance(space, Numbered) and isinstance(names, Numbered)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _is_renumbered(use: Use, space: Space) -> bool:
    """Whether a column must be numbered anew to be read by its head."""
    names = _names(use.dataset, use.column)
    return names is not None and set(names) <= set(space) and tuple(names) != tuple(space)


def _replaced(
    experiment: Experiment, numbered: Mapping[tuple[str, int, str], tuple[str, ...]]
) -> Experiment:
    """The experiment with the columns of these (place, holder, head) numbered by these names."""
    stages: dict[int, Stage] = {}

    def renumber(place: str, holder: Domain | Evaluation, columns: Mapping[str, str]):
        """(dataset, {head: column}) of a domain or evaluation."""
        dataset, columns = holder.dataset, dict(columns)
        for head, column in columns.items():
            if names := numbered.get((place, id(holder), head)):
                columns[head] = f"{column} as {head}"
                dataset = dataset.match_classes(column, names, columns[head])
        return dataset, columns

    def of_domain(place: str, domain: Domain) -> Domain:
        dataset, columns = renumber(place, domain, domain.heads)
        same = dataset is domain.dataset
        return domain if same else dataclasses.replace(domain, dataset=dataset, heads=columns)

    def of_stage(stage: Stage) -> Stage:
        """The stage itself if nothing changes: arms share it."""
        place = f"stage {stage.name!r}"
        domains = [of_domain(place, domain) for domain in stage.domains]
        named = {name: of_domain(place, domain) for name, domain in stage.data.items()}
        before = (*stage.domains, *stage.data.values())
        if all(a is b for a, b in zip((*domains, *named.values()), before, strict=True)):
            return stage
        return dataclasses.replace(stage, domains=domains, data=named)

    def of_criterion(name: str, criterion: Criterion) -> Criterion:
        domains = [of_domain(f"criterion {name!r}", domain) for domain in criterion.domains]
        return dataclasses.replace(criterion, domains=domains)

    def of_evaluation(name: str, evaluation: Evaluation) -> Evaluation:
        columns = {evaluation.head: evaluation.column}
        dataset, columns = renumber(f"evaluation {name!r}", evaluation, columns)
        if dataset is evaluation.dataset:
            return evaluation
        return dataclasses.replace(evaluation, dataset=dataset, column=columns[evaluation.head])

    for chain in experiment.arms.values():
        for stage in chain:
            if id(stage) not in stages:
                stages[id(stage)] = of_stage(stage)
    return dataclasses.replace(
        experiment,
        arms={arm: [stages[id(stage)] for stage in c] for arm, c in experiment.arms.items()},
        evals={name: of_evaluation(name, e) for name, e in experiment.evals.items()},
        criteria={name: of_criterion(name, c) for name, c in experiment.criteria.items()},
    )
