"""Whether a domain that is held out is seen by no stage."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxtl.data import overlap
from jaxtl.data.steps import selections
from jaxtl.data.streamed import is_streamed
from jaxtl.paths import unknown
from jaxtl.plan import Data, Experiment
from jaxtl.report.held_out import held_out_domains
from jaxtl.study.checks.experiments import Node


def check_held_out(
    experiment: Experiment, nodes: Mapping[str, Node], config: Mapping[str, Any]
) -> None:
    """Check that no stage sees the domain which a config holds out.

    A stage sees it where it trains on other rows of the same dataset, drawn from it at random, or
    on one of its examples.

    Raises:
        ValueError: one does, or there is no such field or no evaluation of the domain's name.
    """
    if experiment.held_out:
        problems = list(_problems(experiment, nodes, config))
        if problems:
            raise ValueError("\n".join(problems))


def _problems(
    experiment: Experiment, nodes: Mapping[str, Node], config: Mapping[str, Any]
) -> Iterable[str]:
    field, value = experiment.held_out, config
    for part in field.split("."):
        if not isinstance(value, Mapping) or part not in value:
            yield f"held_out: {unknown('field of the config', field, config)}"
            return
        value = value[part]
    for domain in held_out_domains(str(value)):
        if domain not in experiment.evals:
            yield f"{field}={value!r}: {unknown('evaluation', domain, experiment.evals)}"
            continue
        held_out = experiment.evals[domain].dataset
        for name, node in nodes.items():
            for trained in node.setup.stage.domains:
                if reason := _same_domain(trained.dataset, held_out):
                    yield (
                        f"{field}={value!r}: stage {name!r} trains on {trained.dataset.name}, "
                        f"{reason}; leave the domain out of its domains"
                    )


def _population(dataset: Data) -> tuple:
    """Where a dataset's rows were drawn from."""
    drawn = (selections.split, selections.few, selections.take)
    return dataset.load, tuple(step for step in dataset.steps if step.function not in drawn)


def _same_domain(trained: Data, held_out: Data) -> str:
    """Why a domain counts as the one that is held out; empty if it does not."""
    if _population(trained) == _population(held_out):
        return f"the domain that is held out ({held_out.name})"
    if any(is_streamed(dataset.table().inputs) for dataset in (trained, held_out)):
        return ""
    if shared := len(overlap(trained, held_out)):
        return f"which holds {shared} examples of it ({held_out.name})"
    return ""
