"""Digests of what each seed of a stage reads."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtl.data.digest import of_arrays, of_rows
from jaxtl.data.streamed import is_streamed
from jaxtl.files import digest
from jaxtl.fingerprint import of_value
from jaxtl.plan import Domain, Head
from jaxtl.train.feed.examples import label_columns, row_weights
from jaxtl.train.resolve.replicas import Replicas


def data_digests(replicas: Replicas) -> dict[str, Any]:
    """{which data: as `domain_digests`} of the domains of a stage and of what `prepare` reads."""
    count = len(replicas) // replicas.points
    stages = [setup.stage for setup in replicas.setups[::count]]
    seeds, heads = replicas.seeds[:count], stages[0].model.heads
    domains = [stage.domains for stage in stages]
    points = {
        **{f"domain {d}": each for d, each in enumerate(zip(*domains, strict=True))},
        **{f"data {name!r}": [s.data[name] for s in stages] for name in stages[0].data},
    }
    return {name: domain_digests(domains, heads, seeds) for name, domains in points.items()}


def domain_digests(
    points: Sequence[Domain], heads: Mapping[str, Head], seeds: Sequence[int]
) -> dict[str, Any]:
    """What the seeds read of a domain, as JSON.

    Args:
        points: the domain at each point of a sweep, whose examples are the same.

    Returns:
        {"name": of the dataset, "sampled": whether not every byte was looked at, "seeds": {seed:
        digest}}; the name is for people.
    """
    domain, dataset, digests = points[0], points[0].dataset, {}
    inputs = dataset.table().inputs
    labels = {name: label_columns(domain, name, heads[name])[0] for name in domain.heads}
    classes = {name: dataset.class_names(column) for name, column in domain.heads.items()}
    steps = of_value(dataset.table_steps) if is_streamed(inputs) else None
    if domain.episodes is not None:
        labels["episodes"] = dataset.table().labels[domain.episodes.groups]
        steps = [steps, str(domain.episodes), domain.episodes.queries]
    if domain.draw is not None:
        labels["draw"] = dataset.table().labels[domain.draw.groups]
        steps = [steps, domain.draw.groups, domain.draw.temperature]
    for seed in seeds:
        rows = dataset.rows(seed)
        columns = {name: values[rows] for name, values in labels.items()}
        weights = [row_weights(point, heads, rows) for point in points]
        parts = [of_rows(inputs, rows).digest, of_arrays((columns, weights)).digest, classes, steps]
        digests[str(seed)] = digest(parts)
    return {"name": dataset.name, "sampled": is_streamed(inputs), "seeds": digests}
