"""Mixup between domains: training on weighted means of examples of two domains."""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import POSITIVE, checked
from jaxtl.losses import supervised
from jaxtl.methods.generalize.risks import check_sources
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Batch, Method, PyTree


@checked
def domain_mixup(
    tx: optax.GradientTransformation | Groups, *, alpha: Annotated[float, POSITIVE] = 0.2
) -> Method:
    """Inputs share * x_d + (1 - share) * x_e of two domains d and e with the loss of both labels.

    As in DomainBed the domains stand in a circle, in an order drawn for every step, and each is
    mixed with the next, row by row: every domain counts twice, once with its share and once with
    the rest of its neighbour's. A share ~ Beta(alpha, alpha) is drawn for each pair of domains. Of
    a pair of examples with a missing label the inputs are mixed, and only the term of the known
    label counts. `transfer.mixup` mixes within domains.

    Args:
        alpha: > 0; small values leave most examples almost as they are.

    Raises:
        ValueError: the domains are not several labelled sources, or inputs are not floats.

    Wang et al., "Heterogeneous Domain Generalization via Domain Mixup", ICASSP 2020.
    arXiv:2009.05448.
    """

    def loss_fn(model, params, state, batch, rng, step):
        key, rng = jax.random.split(rng)
        inputs, first, partners = mix_domains(key, batch, alpha)
        output, state = apply_flat(model, params, state, inputs, rng=rng, train=True)
        loss, metrics = supervised(model.heads, output["logits"], first)
        partner_loss, more = supervised(model.heads, output["logits"], partners)
        return loss + partner_loss, (state, jax.tree.map(jnp.add, metrics, more))

    return one_update(as_groups(tx), loss_fn, per_example=True)


def mix_domains(rng: jax.Array, batch: Batch, alpha: float) -> tuple[PyTree, Batch, Batch]:
    """(mixed inputs, own labels with their share of the weights, the partners' likewise).

    Raises:
        ValueError: as `domain_mixup`.
    """
    check_sources(batch)
    kinds = {leaf.dtype for leaf in jax.tree.leaves(batch.inputs)}
    if not all(jnp.issubdtype(kind, jnp.floating) for kind in kinds):
        raise ValueError(
            f"mixup needs inputs that are floats, got {', '.join(sorted(map(str, kinds)))}"
        )
    domains = len(batch.roles)
    share_key, order_key = jax.random.split(rng)
    share = jax.random.beta(share_key, alpha, alpha, (1, domains))
    circle = jax.random.permutation(order_key, domains)
    partner = jnp.zeros(domains, int).at[circle].set(jnp.roll(circle, -1))

    def aligned(leaf: jax.Array) -> jax.Array:
        return jnp.expand_dims(share, tuple(range(2, leaf.ndim))).astype(leaf.dtype)

    def of_partner(leaf: jax.Array) -> jax.Array:
        return jnp.take(leaf, partner, axis=1)

    def mix(leaf: jax.Array) -> jax.Array:
        return aligned(leaf) * leaf + (1 - aligned(leaf)) * of_partner(leaf)

    weights = {name: aligned(leaf) * leaf for name, leaf in batch.weights.items()}
    others = {name: (1 - aligned(leaf)) * of_partner(leaf) for name, leaf in batch.weights.items()}
    labels = {name: of_partner(leaf) for name, leaf in batch.labels.items()}
    inputs = jax.tree.map(mix, batch.inputs)
    return inputs, batch.replace(weights=weights), batch.replace(labels=labels, weights=others)
