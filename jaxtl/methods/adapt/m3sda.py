"""M3SDA: moments of all sources and of the target agree, and every source has a classifier."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import classifier_discrepancy, supervised
from jaxtl.losses.magnitude import norms
from jaxtl.losses.weighting import weigh, weighted_mean
from jaxtl.methods.adapt.adversary import second_classifier, with_opponent
from jaxtl.methods.adapt.several_sources import for_each_source, source_places
from jaxtl.methods.adapt.sides import Weight, at_step, flat_features, head_of, target_rows
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Batch, Method, Model, Module, Params, State, Update

CLASSIFIERS = ("first", "second")
GROUP = "classifiers"


def m3sda(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight = 0.0005,
    votes: Sequence[float] | None = None,
    classifier: Module | None = None,
) -> Method:
    """Each source's loss by its own classifier + weight * the `moment_distance` of the features.

    The prediction is the weighted mean of the classifiers' probabilities, its logarithm the logits
    (a label of a target trains that mean too). The model's own head is not read. In the authors'
    code, of whose scale the default weight is, moments are central and a sum over pairs is divided
    by 6; here they are as in the paper.

    Args:
        weight: the paper's lambda.
        votes: weights of the classifiers, in the order of the sources; equal if None. The paper's
            are accuracies on the target, so measured with its labels.
        classifier: features [..., features] -> [..., classes], one for each source; by default
            linear.

    Raises:
        ValueError: the stage has fewer than two sources, no target or other than one head; votes
            are not one positive number for each source.

    Peng et al., "Moment Matching for Multi-Source Domain Adaptation", ICCV 2019.
    arXiv:1812.01754, Eq. 1 and 4.
    """
    modules = {"first": for_each_source(second_classifier(classifier))}

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task = source_loss(model, modules, params, output, batch, votes)
        distance = batch_moment_distance(output, batch)
        loss = task + at_step(weight, step) * distance
        return loss, (state, {"task_loss": task, "moment_distance": distance})

    predict = predicting(modules, votes)
    return one_update(as_groups(tx), loss_fn, per_example=False, modules=modules, predict=predict)


def m3sda_beta(
    tx: optax.GradientTransformation | Groups,
    *,
    classifier_tx: optax.GradientTransformation | None = None,
    weight: Weight = 0.0005,
    votes: Sequence[float] | None = None,
    classifier: Module | None = None,
    encoder_steps: int = 4,
) -> Method:
    """`m3sda` with two classifiers for each source, which disagree on the target as in `mcd`.

    Each training step has three: (1) everything minimises the sources' losses by both classifiers
    + weight * the distance of moments; (2) the classifiers minimise those losses - the sum over
    sources of their pair's discrepancy on the target; (3) the rest minimises that sum,
    `encoder_steps` times. The discrepancy is a mean over the classes. Batch statistics follow the
    first step only. Predictions are the mean over all classifiers.

    Args:
        classifier_tx: of the classifiers; `tx`, otherwise of the backbone alone, if None.
        weight, votes, classifier: as in `m3sda`.
        encoder_steps: 4 in the authors' code.

    Raises:
        ValueError: as in `m3sda`; `tx` is groups and there is no `classifier_tx`.

    Peng et al., as in `m3sda`, Section 4.2.
    """
    modules = {name: for_each_source(second_classifier(classifier)) for name in CLASSIFIERS}
    patterns = [f"{name}/.*" for name in CLASSIFIERS]
    groups, encoder = with_opponent(tx, GROUP, patterns, classifier_tx)

    def terms(model, params, state, batch, rng):
        """(losses of the sources; the pairs' discrepancies, summed; model's output; state)."""
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task = source_loss(model, modules, params, output, batch, votes)
        features, present = target_rows((flat_features(output), batch.present), batch)
        first, second = (
            on_all(network, params[name], features) for name, network in modules.items()
        )
        apart = jax.vmap(classifier_discrepancy, (0, 0, None))(first, second, present).sum()
        return task, apart, output, state

    def task_loss(model, params, state, batch, rng, step):
        task, _, output, state = terms(model, params, state, batch, rng)
        distance = batch_moment_distance(output, batch)
        loss = task + at_step(weight, step) * distance
        return loss, (state, {"task_loss": task, "moment_distance": distance})

    def classifier_loss(model, params, state, batch, rng, step):
        task, apart, _, _ = terms(model, params, state, batch, rng)
        return task - apart, (state, {"largest_discrepancy": apart})

    def encoder_loss(model, params, state, batch, rng, step):
        _, apart, _, _ = terms(model, params, state, batch, rng)
        return apart, (state, {"discrepancy": apart})

    updates = (
        Update(task_loss, (GROUP, *encoder)),
        Update(classifier_loss, (GROUP,)),
        Update(encoder_loss, encoder, repeat=encoder_steps),
    )
    return Method(groups, updates, modules=modules, predict=predicting(modules, votes))


def moment_distance(
    sources: jax.Array, target: jax.Array, source_weights: jax.Array, target_weights: jax.Array
) -> jax.Array:
    """sum_{k=1,2} (mean_i |E s_i^k - E t^k| + mean_{i<j} |E s_i^k - E s_j^k|), the paper's Eq. 1.

    Powers are of each feature by itself, moments about 0, norms Euclidean over the features, with
    gradient 0 where a gap is 0. A domain without weight is at no distance from any.

    Args:
        sources: [sources, n_source, features] float, two sources or more.
        target: [n_target, features].
        source_weights: [sources, n_source] float >= 0, only their proportions count.
        target_weights: [n_target], likewise.
    """
    rows = [*zip(sources, source_weights, strict=True), (target, target_weights)]
    weighed = [weigh(*pair) for pair in rows]
    count, last = len(sources), len(sources)
    total = jnp.zeros(())
    for k in (1, 2):
        moments = [weighted_mean(x**k, w) for x, w, _ in weighed]
        for i, j in itertools.combinations(range(count + 1), 2):
            pairs = count if j == last else count * (count - 1) / 2
            gap = norms(moments[i] - moments[j])
            total += jnp.where(weighed[i][2] & weighed[j][2], gap, 0) / pairs
    return total


def batch_moment_distance(output: dict, batch: Batch) -> jax.Array:
    """The `moment_distance` of a batch's features; its targets are one domain."""
    features, places = flat_features(output), list(source_places(batch.roles))
    target, present = target_rows((features, batch.present), batch)
    by_source = (jnp.swapaxes(x[:, places], 0, 1) for x in (features, batch.present))
    sources, source_present = by_source
    return moment_distance(sources, target, source_present, present)


def source_loss(
    model: Model,
    modules: dict[str, Module],
    params: Params,
    output: dict,
    batch: Batch,
    votes: Sequence[float] | None,
) -> jax.Array:
    """The supervised objective of each source by its own classifiers, and of targets by all."""
    head, features = head_of(batch), flat_features(output)
    places, total = source_places(batch.roles), jnp.zeros(())
    for name, network in modules.items():
        every = on_all(network, params[name], features)  # [sources, batch, domains, classes]
        columns = [
            every[places.index(d), :, d] if d in places else mean_vote(every[:, :, d], votes)
            for d in range(len(batch.roles))
        ]
        total += supervised(model.heads, {head: jnp.stack(columns, 1)}, batch)[0]
    return total


def on_all(network: Module, params: Params, features: jax.Array) -> jax.Array:
    """What every source's classifier says of the same features: [sources, ..., classes]."""
    count = len(jax.tree.leaves(params)[0])
    return network.apply(params, jnp.broadcast_to(features, (count, *features.shape)))


def mean_vote(logits: jax.Array, votes: Sequence[float] | None) -> jax.Array:
    """The logarithm of the weighted mean of probabilities: [sources, ...] -> [...].

    Raises:
        ValueError: votes are not one positive number for each source.
    """
    count = len(logits)
    votes = (1.0,) * count if votes is None else tuple(votes)
    if len(votes) != count or min(votes) <= 0:
        raise ValueError(f"votes: a positive number for each of {count} sources, got {votes}")
    shares = jnp.array(votes) / sum(votes)
    shares = jnp.broadcast_to(jnp.expand_dims(shares, tuple(range(1, logits.ndim))), logits.shape)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), 0, b=shares)


def predicting(modules: dict[str, Module], votes: Sequence[float] | None):
    """`Method.predict` of the classifiers' mean."""

    def predict(model: Model, params: Params, state: State, inputs):
        if len(model.heads) != 1:
            raise ValueError(
                f"the classifiers of m3sda stand for the one head of their model, which has "
                f"{', '.join(model.heads)}"
            )
        output, _ = model.apply(params, state.statistics, inputs)
        features = output["features"].reshape(len(output["features"]), -1)
        logits = [
            mean_vote(on_all(network, params[name], features), votes)
            for name, network in modules.items()
        ]
        mean = jax.nn.logsumexp(jnp.stack(logits), 0) - jnp.log(len(logits))
        return {**output, "logits": dict.fromkeys(model.heads, mean)}

    return predict
