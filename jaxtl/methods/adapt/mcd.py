"""Maximum classifier discrepancy: two classifiers that find target examples far from the source."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import classifier_discrepancy, supervised
from jaxtl.methods.adapt.adversary import for_classes, with_opponent
from jaxtl.methods.adapt.sides import head_of, split_sides
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.models import apply_flat
from jaxtl.plan import Method, Module, Update

SECOND = "classifier"
CLASSIFIERS = "classifiers"


def mcd(
    tx: optax.GradientTransformation | Groups,
    *,
    classifier_tx: optax.GradientTransformation | None = None,
    classifier: Module | None = None,
    encoder_steps: int = 4,
    balance: float = 0.01,
) -> Method:
    """Two classifiers disagree on the target as much as the source allows, the features prevent it.

    Each training step has the paper's three: (A) everything minimises the supervised objective of
    both classifiers; (B) the classifiers minimise that - the discrepancy of their probabilities on
    the target; (C) the rest minimises the discrepancy, `encoder_steps` times. The model's head is
    one of the classifiers and the one that predicts. As in public code all steps see the whole
    batch; the batch statistics follow step A only.

    Args:
        tx: optax transformation of the backbone, or groups as in `transfer.grouped`.
        classifier_tx: of both classifiers; `tx` if None.
        classifier: the second one, features [..., features] -> [..., classes]; by default linear,
            of the kind of the model's head.
        encoder_steps: the paper's n = 4.
        balance: factor, in A and B, of -mean over classes of log(mean target probability + 1e-6)
            of both classifiers. It keeps classes from vanishing; 0.01 in public code.

    Raises:
        ValueError: `tx` is groups and there is no `classifier_tx`.

    Saito et al., "Maximum Classifier Discrepancy for Unsupervised Domain Adaptation", CVPR 2018.
    arXiv:1712.02560.
    """
    network = for_classes(classifier)
    patterns = ("heads/.*", f"{SECOND}/.*")
    groups, others = with_opponent(tx, CLASSIFIERS, patterns, classifier_tx)

    def outputs(model, params, state, batch, rng):
        """(supervised objectives, summed; target logits of both, present; state)."""
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        flat = output["features"].reshape(*output["features"].shape[:2], -1)
        head, task, found = head_of(batch), jnp.zeros(()), []
        for logits in (output["logits"][head], network.apply(params[SECOND], flat)):
            task += supervised(model.heads, {head: logits}, batch)[0]
            target = split_sides({**output, "logits": {head: logits}}, batch)[1]
            found.append(target.logits)
        return task, (*found, target.present), state

    def task_loss(model, params, state, batch, rng, step):
        task, target, state = outputs(model, params, state, batch, rng)
        return task + balance * _unbalance(*target), (state, {"task_loss": task})

    def classifier_loss(model, params, state, batch, rng, step):
        task, target, _ = outputs(model, params, state, batch, rng)
        gap = classifier_discrepancy(*target)
        return task + balance * _unbalance(*target) - gap, (state, {"largest_discrepancy": gap})

    def encoder_loss(model, params, state, batch, rng, step):
        _, target, _ = outputs(model, params, state, batch, rng)
        gap = classifier_discrepancy(*target)
        return gap, (state, {"discrepancy": gap})

    updates = (
        Update(task_loss, (CLASSIFIERS, *others)),
        Update(classifier_loss, (CLASSIFIERS,)),
        Update(encoder_loss, others, repeat=encoder_steps),
    )
    return Method(groups, updates, modules={SECOND: network})


def _unbalance(first: jax.Array, second: jax.Array, present: jax.Array) -> jax.Array:
    shares = present / jnp.maximum(present.sum(), 1e-12)
    means = [shares @ jax.nn.softmax(logits) for logits in (first, second)]
    return -sum(jnp.log(mean + 1e-6).mean() for mean in means)
