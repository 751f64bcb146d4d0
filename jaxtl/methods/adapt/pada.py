"""PADA: an adversary that leaves out source classes which the target seems not to have."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.adversary import both, is_target, reversed_domain_loss
from jaxtl.methods.adapt.dann import DISCRIMINATOR
from jaxtl.methods.adapt.sides import Weight, at_step, head_of, split_sides
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat, mlp_head, outputs
from jaxtl.plan import (
    Batch,
    Columns,
    Method,
    Model,
    Module,
    Params,
    PyTree,
    StageShape,
    State,
    Statistics,
)
from jaxtl.plan.batch import sides_of


def pada(
    tx: optax.GradientTransformation | Groups,
    *,
    reversal: Weight,
    weight: Weight = 1.0,
    temperature: float = 1.0,
    every: int = 500,
    discriminator: Module | None = None,
) -> Method:
    """The objective of `dann` with class weights on the sources, in both of its terms.

    A class weighs as much as the target's examples are on average predicted to be of it, over the
    largest such number. The weights are computed on all targets before step 0 and every so many
    steps; those of an untrained head are nearly equal. All targets are one domain.

    Args:
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        reversal, weight: as in `dann`.
        temperature: > 0, of the predictions that are averaged; 1 is the paper's, public code has
            0.1 too.
        every: steps between two computations of the weights.
        discriminator: features [..., features] -> [..., 2]; by default one hidden layer of 100.

    Cao et al., "Partial Adversarial Domain Adaptation", ECCV 2018. arXiv:1808.04205, Eq. 2 to 4.
    """
    network = discriminator or mlp_head((100,), 2)

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        return {name: jnp.ones(head.size) for name, head in model.heads.items()}

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        (head,) = domains[0].labels
        targets = [domains[d] for d in sides_of([one.role for one in domains])[1]]
        parts = [outputs(model, params, state, one.inputs, "logits") for one in targets]
        logits = np.concatenate([part[head] for part in parts]).astype(np.float64) / temperature
        shares = np.exp(logits - logits.max(1, keepdims=True))
        present = np.concatenate([one.present for one in targets]).astype(np.float64)
        mean = present @ (shares / shares.sum(1, keepdims=True)) / max(present.sum(), 1e-12)
        found = (mean / mean.max()).astype(np.float32)
        return params, state._replace(method={**state.method, head: found})

    def loss_fn(model: Model, params: Params, state: State, batch: Batch, rng, step: jax.Array):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        source, target = split_sides(output, batch)
        head, of_class = head_of(batch), state.method[head_of(batch)]
        is_source = np.array(batch.roles) == "source"
        factors = jnp.where(is_source[None], of_class[jnp.maximum(batch.labels[head], 0)], 1)
        weighted = batch.replace(weights={head: batch.weights[head] * factors})
        task, _ = supervised(model.heads, output["logits"], weighted)
        likeness = of_class[jnp.maximum(source.labels, 0)]
        loss, metrics = reversed_domain_loss(
            network,
            params[DISCRIMINATOR],
            both(source, target, "features"),
            is_target(source, target),
            at_step(reversal, step),
            jnp.concatenate([source.present * likeness, target.present]),
        )
        metrics |= {"task_loss": task, "mean_class_weight": of_class.mean()}
        return task + at_step(weight, step) * loss, (state, metrics)

    return one_update(
        as_groups(tx),
        loss_fn,
        per_example=True,
        modules={DISCRIMINATOR: network},
        state=start,
        prepare=prepare,
        prepare_every=every,
    )
