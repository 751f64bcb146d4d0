"""Digests of what each seed of a stage reads."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtl.data.digest import of_arrays, of_rows
from jaxtl.plan import Domain, Head
from jaxtl.train.feed.examples import label_columns, row_weights
from jaxtl.train.resolve.replicas import Replicas


def data_digests(replicas: Replicas) -> dict[str, Any]:
    """{which data: as `domain_digests`} of the domains of a stage and of what `prepare` reads."""
    count = len(replicas) // replicas.points
    stages = [setup.stage for setup in replicas.setups[::count]]
    seeds, heads = replicas.seeds[:count], stages[0].model.heads
    digests = {}
    for d, domain in enumerate(stages[0].domains):
        points = [stage.domains[d] for stage in stages]
        digests[f"domain {d} ({domain.dataset.name})"] = domain_digests(points, heads, seeds)
    for name, domain in stages[0].data.items():
        points = [stage.data[name] for stage in stages]
        digests[f"data {name!r} ({domain.dataset.name})"] = domain_digests(points, heads, seeds)
    return digests


def domain_digests(
    points: Sequence[Domain], heads: Mapping[str, Head], seeds: Sequence[int]
) -> dict[str, Any]:
    """{"sampled": whether not every byte was looked at, "seeds": {seed: digest}}.

    Args:
        points: the domain at each point of a sweep, whose examples are the same.
    """
    domain, sampled, digests = points[0], False, {}
    labels = {name: label_columns(domain, name, heads[name])[0] for name in domain.heads}
    for seed in seeds:
        rows = domain.dataset.rows(seed)
        inputs = of_rows(domain.dataset.table().inputs, rows)
        weights = [row_weights(point, heads, rows) for point in points]
        others = of_arrays(({name: values[rows] for name, values in labels.items()}, weights))
        digests[str(seed)] = hashlib.sha256(
            f"{inputs.digest} {others.digest}".encode()
        ).hexdigest()[:16]
        sampled = sampled or inputs.sampled
    return {"sampled": sampled, "seeds": digests}
