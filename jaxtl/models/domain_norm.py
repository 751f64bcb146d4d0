"""Domain-specific batch normalisation: statistics, scales and shifts of each domain."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxtl import paths
from jaxtl.form import AT_LEAST_0, AT_LEAST_1, checked
from jaxtl.models.model import Network
from jaxtl.plan import Params, PyTree, Statistics


@checked
def domain_norm(
    model: Network,
    domains: Annotated[int, AT_LEAST_1],
    *,
    domain: Annotated[int, AT_LEAST_0] | None = None,
) -> Network:
    """The same model, whose BatchNorm layers are each domain's own; all else is shared.

    While training, a row is normalised by the statistics of its domain: rows are those of a stage
    of so many domains, [batch, domains] flattened as `apply_flat` does. Means, variances, scales
    and shifts have a leading axis [domains] and keep their paths, so that published weights and
    those of a stage without domains of its own do not fit them.

    Evaluation knows no domain. With `domain` all rows count as of that one: the target, say, whose
    examples trained without labels (the paper). Otherwise features and logits are the mean over
    what the norms of all domains give, as for a domain that nobody has seen (a mixture of all
    domains: Seo et al., "Learning to Optimize Domain Specific Normalization for Domain
    Generalization", 2020, arXiv:1907.04275), at `domains` times the cost.

    The model has no named blocks any more: what a block makes of a row depends on the row's domain,
    so that nothing is computed ahead.

    Args:
        model: with BatchNorm layers.
        domains: of every stage that trains it.
        domain: position of the one whose norms evaluation uses; `dataclasses.replace(model,
            domain=0)` uses others.

    Raises:
        ValueError: there is no such domain; from `init`, the model has no batch statistics; from
            `apply`, the rows are not of so many domains.

    Chang et al., "Domain-Specific Batch Normalization for Unsupervised Domain Adaptation", CVPR
    2019. arXiv:1906.03950.
    """
    if domain is not None and domain >= domains:
        raise ValueError(f"domain {domain} of {domains}: positions are 0 to {domains - 1}")
    values = {field.name: getattr(model, field.name) for field in dataclasses.fields(Network)}
    return DomainNorm(**values, domains=domains, domain=domain)


@dataclasses.dataclass(frozen=True, eq=False)
class DomainNorm(Network):
    """The `Network` that `domain_norm` makes.

    Attributes:
        domains, domain: as in `domain_norm`.
    """

    domains: int = 1
    domain: int | None = None

    @property
    def blocks(self) -> tuple[str, ...]:
        return ()

    @property
    def shared(self) -> Network:
        """The model of one domain."""
        names = [field.name for field in dataclasses.fields(Network)]
        return Network(**{name: getattr(self, name) for name in names})

    def cut(self, block: str) -> tuple[Network, Network]:
        raise ValueError(
            f"a model with domain_norm cannot be cut after block {block!r}: what its blocks make "
            "of a row depends on the row's domain"
        )

    def init(self, rng: jax.Array, inputs: PyTree) -> tuple[Params, Statistics]:
        params, statistics = self.shared.init(rng, inputs)
        if not statistics:
            raise ValueError("domain_norm: the model has no batch statistics, so no BatchNorm")

        def repeated(leaf: jax.Array) -> jax.Array:
            return jnp.repeat(leaf[None], self.domains, 0)

        layers = _layers(statistics)
        flat = {
            path: repeated(leaf) if path.rpartition("/")[0] in layers else leaf
            for path, leaf in paths.flatten(params).items()
        }
        return paths.nest(flat), jax.tree.map(repeated, statistics)

    def apply(
        self,
        params: Params,
        statistics: Statistics,
        inputs: PyTree,
        *,
        rng: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], Statistics]:
        by_domain = _by_domain(params, _layers(statistics))

        def apply(params: Params, statistics: Statistics, inputs: PyTree, rng: jax.Array | None):
            return self.shared.apply(params, statistics, inputs, rng=rng, train=train)

        if not train:
            every = jax.vmap(apply, (by_domain, 0, None, None))
            if self.domain is None:
                output, _ = every(params, statistics, inputs, rng)
                return jax.tree.map(lambda leaf: leaf.mean(0), output), statistics
            chosen_params = jax.tree.map(
                lambda axis, leaf: leaf if axis is None else leaf[self.domain],
                by_domain,
                params,
                is_leaf=lambda axis: axis is None,
            )
            chosen = jax.tree.map(lambda leaf: leaf[self.domain], statistics)
            return apply(chosen_params, chosen, inputs, rng)[0], statistics
        rows = len(jax.tree.leaves(inputs)[0])
        if rows % self.domains:
            raise ValueError(
                f"domain_norm: {rows} rows are not of {self.domains} domains; a stage that trains "
                f"this model has {self.domains}"
            )

        def cut(leaf: jax.Array) -> jax.Array:
            return leaf.reshape(-1, self.domains, *leaf.shape[1:])

        keys = None if rng is None else jax.random.split(rng, self.domains)
        output, statistics = jax.vmap(apply, (by_domain, 0, 1, None if rng is None else 0), (1, 0))(
            params, statistics, jax.tree.map(cut, inputs), keys
        )
        return jax.tree.map(lambda leaf: leaf.reshape(rows, *leaf.shape[2:]), output), statistics


def _layers(statistics: Statistics) -> set[str]:
    """Paths of the layers that have batch statistics."""
    return {path.rpartition("/")[0] for path in paths.flatten(statistics)}


def _by_domain(params: Params, layers: set[str]) -> PyTree:
    """0 for parameters with an axis of domains, None for those that all share."""

    def axis(place: tuple, leaf: jax.Array) -> int | None:
        return 0 if "/".join(part.key for part in place[:-1]) in layers else None

    return jax.tree_util.tree_map_with_path(axis, params)
