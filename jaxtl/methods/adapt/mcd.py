"""Maximum classifier discrepancy: two classifiers that find target examples far from the source."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import classifier_discrepancy, supervised
from jaxtl.methods.adapt.adversary import second_classifier, with_opponent
from jaxtl.methods.adapt.sides import flat_features, head_of, target_rows
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
        classifier_tx: of both classifiers; `tx`, otherwise of the backbone alone, if None.
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
    network = second_classifier(classifier)
    patterns = ("heads/.*", f"{SECOND}/.*")
    groups, encoder = with_opponent(tx, CLASSIFIERS, patterns, classifier_tx)

    def terms(model, params, state, batch, rng):
        """(task loss and imbalance, summed over both classifiers; discrepancy; state)."""
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        head, present = head_of(batch), target_rows(batch.present, batch)
        pair = (output["logits"][head], network.apply(params[SECOND], flat_features(output)))
        task = sum(supervised(model.heads, {head: logits}, batch)[0] for logits in pair)
        on_target = [target_rows(logits, batch) for logits in pair]
        shares = present / jnp.maximum(present.sum(), 1e-12)
        means = [shares @ jax.nn.softmax(logits) for logits in on_target]
        imbalance = -sum(jnp.log(mean + 1e-6).mean() for mean in means)
        return task, imbalance, classifier_discrepancy(*on_target, present), state

    def task_loss(model, params, state, batch, rng, step):
        task, imbalance, _, state = terms(model, params, state, batch, rng)
        return task + balance * imbalance, (state, {"task_loss": task})

    def classifier_loss(model, params, state, batch, rng, step):
        task, imbalance, discrepancy, _ = terms(model, params, state, batch, rng)
        loss = task + balance * imbalance - discrepancy
        return loss, (state, {"largest_discrepancy": discrepancy})

    def encoder_loss(model, params, state, batch, rng, step):
        _, _, discrepancy, _ = terms(model, params, state, batch, rng)
        return discrepancy, (state, {"discrepancy": discrepancy})

    updates = (
        Update(task_loss, (CLASSIFIERS, *encoder)),
        Update(classifier_loss, (CLASSIFIERS,)),
        Update(encoder_loss, encoder, repeat=encoder_steps),
    )
    return Method(groups, updates, modules={SECOND: network})
