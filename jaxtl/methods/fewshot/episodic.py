"""Meta-training: the loss of a learner's answers, averaged over episodes."""

import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import weighted_losses
from jaxtl.methods.fewshot.reading import weighted_mean
from jaxtl.models import episode_logits
from jaxtl.plan import Learner, Method, Update


def episodic(
    learner: Learner, tx: optax.GradientTransformation, *, patterns: Sequence[str] = (".*",)
) -> Method:
    """Trains what a learner reads: (1 / T) sum over T episodes of the mean loss of their queries.

    The loss is that of the episodes' head on the learner's logits, the gradient goes through the
    learner, the support and any inner loop included. What the learner has of its own trains too.
    The accuracy on the queries is logged.

    Args:
        learner: such as `prototypical()`; also how the arm is evaluated on episodes.
        patterns: path patterns of what trains. A head that the learner does not read stays as it
            was, so that all of them may be matched.

    Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016, arXiv:1606.04080,
    Eq. 3, for the training in episodes.
    """

    def loss_fn(model, params, state, batch, rng, step):
        logits, statistics = episode_logits(
            learner, model, params, state, batch, rng=rng, train=True
        )
        (name,), shots = batch.labels, batch.roles.count("support")
        head, labels = model.heads[name], batch.labels[name][:, shots:]
        weights = batch.present[:, shots:]
        losses = weighted_losses(head, logits, labels, (weights > 0).astype(weights.dtype))
        loss = jnp.mean(jax.vmap(weighted_mean)(losses, weights))
        metrics = {}
        if head.integer:
            right = (logits.argmax(-1) == labels).astype(weights.dtype)
            metrics["query_accuracy"] = jnp.mean(jax.vmap(weighted_mean)(right, weights))
        return loss, (state._replace(statistics=statistics), metrics)

    trained = (*patterns, *(f"{re.escape(name)}/.*" for name in learner.modules))
    return Method(
        {"all": (trained, tx)},
        (Update(loss_fn, per_example=True),),
        modules=learner.modules,
        learner=learner,
    )


def untrained(learner: Learner) -> Method:
    """Trains nothing: a stage of 0 steps after which an arm is asked by a learner.

    What the stage before learned, from episodes or not, is how the learner starts: the plain
    baseline of few-shot learning. What nobody trained, such as the head of the episodes, stays
    random.

    Args:
        learner: without networks of its own, as nobody would train them.
    """
    return Method(learner=learner, fresh_frozen=True)
