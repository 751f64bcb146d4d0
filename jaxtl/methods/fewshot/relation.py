"""Relation network: a network says how much a query is like a class."""

import jax.numpy as jnp

from jaxtl.methods.fewshot.reading import among_present, both_features, check_classes, class_means
from jaxtl.models import mlp_head
from jaxtl.plan import Learner, Module


def relation(module: Module | None = None, *, transductive: bool = False) -> Learner:
    """Logits g([c_k, f(x)]), g a network on the features of a class and of a query.

    c_k is the mean over the support of class k, where the paper takes the sum: the same for one
    shot, and of the same size for many. The features are those of the whole backbone, flat, where
    the paper joins feature maps; and g's outputs are logits of the head's loss, where the paper
    fits a sigmoid to 0 and 1 by squared errors.

    Args:
        module: g, [n, 2 * features] -> [n, 1], as `mlp_head((64,), 1)`, which is used if None.

    Sung et al., "Learning to Compare: Relation Network for Few-Shot Learning", CVPR 2018.
    arXiv:1711.06025, Eq. 1.
    """
    network = mlp_head((64,), 1) if module is None else module

    def init(rng, output, shape):
        features = output["features"].reshape(len(output["features"]), -1)
        pairs = jnp.concatenate([features, features], -1)
        return network.init(rng, {**output, "features": pairs}, shape)

    def predict(model, params, state, support, queries, *, ways, rng, train):
        check_classes(model, "relation")
        of_support, of_queries, statistics = both_features(
            model, params, state, support, queries, rng=rng, live=train or transductive
        )
        prototypes = class_means(of_support, support, ways)
        shape = (len(of_queries), ways, of_queries.shape[-1])
        pairs = jnp.concatenate(
            [
                jnp.broadcast_to(prototypes[None], shape),
                jnp.broadcast_to(of_queries[:, None], shape),
            ],
            -1,
        )
        scores = network.apply(params["relation"], pairs.reshape(-1, pairs.shape[-1]))
        return among_present(scores.reshape(shape[:2]), support, ways), statistics

    return Learner("relation", predict, {"relation": Module(init, network.apply)}, transductive, ())
