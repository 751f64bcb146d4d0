"""Conditional domain-adversarial training: within each class, no telling the sources apart."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.adversary import DISCRIMINATOR, domain_confusion_loss, domain_index
from jaxtl.methods.adapt.cdan import conditioned, on_products
from jaxtl.methods.adapt.sides import (
    Weight,
    as_rows,
    at_step,
    flat_features,
    head_of,
    labelled_weights,
)
from jaxtl.methods.generalize.risks import check_sources
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method, Module


def cdann(
    tx: optax.GradientTransformation | Groups,
    *,
    reversal: Weight,
    weight: Weight = 1.0,
    discriminator: Module | None = None,
) -> Method:
    """`dann` whose classifier knows the class, as features of each class have inputs of their own.

    Its inputs are outer products of the features and the label, so that its first layer is one for
    each class; the paper has whole networks. Every class of every domain weighs the same in its
    loss, whatever their frequencies, so that classes that are frequent in one domain give nothing
    away: this does what the paper's second, class-normalised classifier is for, which is left out,
    as in DomainBed. Examples without a label are left out.

    Args:
        reversal: as in `dann`.
        discriminator: [..., features * classes] -> [..., domains]; by default two hidden layers of
            1024.

    Raises:
        ValueError: the domains are not several labelled sources, name several heads, or one without
            classes.

    Li et al., "Deep Domain Generalization via Conditional Invariant Adversarial Networks", ECCV
    2018.
    """
    network = on_products(discriminator, None)

    def loss_fn(model, params, state, batch, rng, step):
        check_sources(batch)
        name = head_of(batch)
        if not model.heads[name].integer:
            raise ValueError(f"cdann looks at each class apart, head {name!r} has none")
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        # A label that is missing is -1: no class.
        classes = jax.nn.one_hot(batch.labels[name], output["logits"][name].shape[-1])
        weights = balanced(classes, labelled_weights(batch))
        features, classes, domains, weights = as_rows(
            (flat_features(output), classes, domain_index(batch), weights)
        )
        confusion, metrics = domain_confusion_loss(
            network,
            params[DISCRIMINATOR],
            conditioned(features, classes, None),
            domains,
            weights,
            at_step(reversal, step),
        )
        loss = task + at_step(weight, step) * confusion
        return loss, (state, {"task_loss": task, **metrics})

    modules = {DISCRIMINATOR: network}
    return one_update(as_groups(tx), loss_fn, per_example=False, modules=modules)


def balanced(classes: jax.Array, weights: jax.Array) -> jax.Array:
    """Weights of mean 1 with which all classes of all domains that occur weigh the same.

    Args:
        classes: [batch, domains, classes], one-hot.
        weights: [batch, domains] float >= 0.

    Returns:
        [batch, domains]; zeros where nothing has a weight.
    """
    shares = weights[..., None] * classes
    totals = shares.sum(0, keepdims=True)
    shares /= jnp.where(totals > 0, totals, 1)
    return shares.sum(-1) * weights.size / jnp.maximum(jnp.sum(totals > 0), 1)
