"""Co-Tuning: the source's classes supervise the target's examples too."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.losses import supervised
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat, outputs
from jaxtl.paths import unknown
from jaxtl.plan import Columns, Method, Model, Params, StageShape, State, Statistics


def co_tuning(
    tx: optax.GradientTransformation | Groups,
    *,
    source: str,
    target: str,
    weight: float = 2.3,
    temperature: float = 1.0,
) -> Method:
    """Fine-tuning of the target's head and, on the same examples, of what the source's head says.

    Adds weight * sum_d (1 / B) sum_i w_i CE(relation[y_i], softmax(source logits_i)) for the labels
    y and weights w of the target's head. relation[y] = p(source class | y) is the mean softmax of
    the source's head over the stage's examples of class y, weighted by w, before the first step
    (the paper's direct approach).

    The paper calibrates that softmax by a temperature found on validation data of the source,
    which a stage does not have: give the temperature. The paper trains the source's head too; here
    it trains if a domain of the stage names it (a column of -1 will do), and stays as it was loaded
    otherwise.

    Args:
        source: the head of the source's classes, loaded.
        target: the head of the target's classes.
        temperature: of the source's logits where the relation is computed.

    Raises:
        ValueError: when it runs, the model lacks one of the heads, they are not of classes, or
            no domain has labels of the target's.

    You et al., "Co-Tuning for Transfer Learning", NeurIPS 2020.
    """

    def blank(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> jax.Array:
        heads = model.heads
        if missing := [name for name in (source, target) if name not in heads]:
            raise ValueError(" ".join(unknown("head", name, heads) for name in missing))
        if numbers := [name for name in (source, target) if not heads[name].integer]:
            raise ValueError(f"Co-Tuning relates classes; not heads of classes: {numbers}.")
        return jnp.zeros((heads[target].size, heads[source].size))

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        sums = np.zeros(state.method.shape)
        for domain in domains:
            if target not in domain.labels:
                continue
            logits = outputs(model, params, state, domain.inputs, "logits")[source]
            logits = logits.astype(np.float64) / temperature
            p = np.exp(logits - np.logaddexp.reduce(logits, 1)[:, None])
            weights, labels = domain.weights[target], domain.labels[target]
            labelled = weights > 0
            np.add.at(sums, labels[labelled], weights[labelled, None] * p[labelled])
        if not sums.any():
            raise ValueError(f"Co-Tuning: no domain of the stage has labels of head {target!r}.")
        # A class without examples is never read.
        relation = sums / np.maximum(sums.sum(1), np.finfo(np.float64).tiny)[:, None]
        return params, state._replace(method=relation)

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        loss, metrics = supervised(model.heads, output["logits"], batch)
        weights, labels = batch.weights[target], jnp.maximum(batch.labels[target], 0)
        source_logits = output["logits"][source].astype(jnp.float32)
        losses = optax.softmax_cross_entropy(source_logits, state.method[labels])
        related = jnp.where(weights > 0, weights * losses, 0).sum() / len(weights)
        return loss + weight * related, (state, {**metrics, "related_loss": related})

    return one_update(as_groups(tx), loss_fn, per_example=True, state=blank, prepare=prepare)
