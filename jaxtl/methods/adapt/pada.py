"""PADA: an adversary that leaves out source classes which the target seems not to have."""

import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.adversary import DISCRIMINATOR, domain_confusion_loss, is_target
from jaxtl.methods.adapt.sides import Weight, at_step, flat_features, head_of, sources_first
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat, mlp_head, outputs
from jaxtl.plan import Columns, Method, Model, Module, Params, StageShape, State, Statistics
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
        reversal: as in `dann`.
        temperature: > 0, of the predictions that are averaged; 1 is the paper's, public code has
            0.1 too.
        every: steps between two computations of the weights.
        discriminator: features [..., features] -> [..., 2]; by default one hidden layer of 100.

    Cao et al., "Partial Adversarial Domain Adaptation", ECCV 2018. arXiv:1808.04205, Eq. 2 to 4.
    """
    network = discriminator or mlp_head((100,), 2)

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape):
        return {name: jnp.ones(head.size) for name, head in model.heads.items()}

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        (head,) = domains[0].labels
        targets = [domains[d] for d in sides_of([domain.role for domain in domains])[1]]
        parts = [outputs(model, params, state, target.inputs, "logits") for target in targets]
        logits = np.concatenate([part[head] for part in parts]).astype(np.float64) / temperature
        odds = np.exp(logits - logits.max(1, keepdims=True))
        present = np.concatenate([target.present for target in targets]).astype(np.float64)
        mean = present @ (odds / odds.sum(1, keepdims=True)) / max(present.sum(), 1e-12)
        class_weights = (mean / mean.max()).astype(np.float32)
        return params, state._replace(method={**state.method, head: class_weights})

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        head = head_of(batch)
        class_weights = state.method[head]
        of_label = class_weights[jnp.maximum(batch.labels[head], 0)]
        factors = jnp.where(is_target(batch), 1, of_label)
        weighted = batch.replace(weights={head: batch.weights[head] * factors})
        task, _ = supervised(model.heads, output["logits"], weighted)
        examples = (flat_features(output), is_target(batch), batch.present * factors)
        confusion, metrics = domain_confusion_loss(
            network, params[DISCRIMINATOR], *sources_first(examples, batch), at_step(reversal, step)
        )
        metrics |= {"task_loss": task, "mean_class_weight": class_weights.mean()}
        return task + at_step(weight, step) * confusion, (state, metrics)

    return one_update(
        as_groups(tx),
        loss_fn,
        per_example=True,
        modules={DISCRIMINATOR: network},
        state=start,
        prepare=prepare,
        prepare_every=every,
    )
