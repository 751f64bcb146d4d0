"""What adversarial methods share: a domain classifier's loss, opponents that train apart."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.losses import reverse_gradient
from jaxtl.methods.adapt.sides import classes_of
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups
from jaxtl.models import mlp_head
from jaxtl.paths import FROZEN
from jaxtl.plan import Batch, Module, Params, StageShape

DISCRIMINATOR = "discriminator"


def domain_loss(
    discriminator: Module,
    params: Params,
    inputs: jax.Array,
    domains: jax.Array,
    weights: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Softmax cross-entropy of a domain classifier, the mean over examples.

    With two domains of equally many examples it is the mean of the binary losses of both.

    Args:
        discriminator: [n, width] -> [n, domains].
        params: its parameters.
        inputs: [n, width] float.
        domains: [n] int, the right answers.
        weights: [n] float >= 0; the sum of weighted losses is divided by n.

    Returns:
        The loss [] and {"domain_loss": [], "domain_accuracy": [], in [0, 1] and unweighted}.
    """
    logits = discriminator.apply(params, inputs)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, domains)
    loss = jnp.mean(jnp.where(weights > 0, weights * losses, 0))
    return loss, {"domain_loss": loss, "domain_accuracy": jnp.mean(logits.argmax(-1) == domains)}


def domain_confusion_loss(
    discriminator: Module,
    params: Params,
    inputs: jax.Array,
    domains: jax.Array,
    weights: jax.Array,
    coefficient: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`domain_loss` whose gradient reaches the inputs times -coefficient, logged as `reversal`."""
    inputs = reverse_gradient(inputs, coefficient)
    loss, metrics = domain_loss(discriminator, params, inputs, domains, weights)
    return loss, {**metrics, "reversal": coefficient}


def domain_index(batch: Batch) -> jax.Array:
    """[batch, domains] int, the position of each example's domain in the stage."""
    return jnp.broadcast_to(jnp.arange(len(batch.roles)), batch.present.shape)


def is_target(batch: Batch) -> jax.Array:
    """[batch, domains] int32, 1 for the examples of targets and 0 for those of sources."""
    is_target = np.array(batch.roles) == "target"
    return jnp.broadcast_to(is_target.astype(np.int32), batch.present.shape)


def domain_classifier(network: Module | None, hidden: Sequence[int]) -> Module:
    """A network, or by default that of `mlp_head`, with an output for each domain of the stage.

    Its `init` raises ValueError if it has another number of outputs.
    """

    def domains(shape: StageShape) -> int:
        return len(shape.roles)

    return _checked(network or mlp_head(hidden, domains), domains, "domains")


def second_classifier(network: Module | None) -> Module:
    """The same with an output for each class of the one head that all domains name; linear."""
    return _checked(network or mlp_head((), classes_of), classes_of, "classes")


def _checked(network: Module, size: Callable[[StageShape], int], what: str) -> Module:
    def init(rng: jax.Array, output: dict, shape: StageShape) -> Params:
        params, expected = network.init(rng, output, shape), size(shape)
        outputs = jax.eval_shape(network.apply, params, output["features"]).shape[-1]
        if outputs != expected:
            raise ValueError(
                f"a network of the method has {outputs} outputs, its stage has {expected} {what}"
            )
        return params

    return Module(init, network.apply)


def with_opponent(
    tx: optax.GradientTransformation | Groups,
    name: str,
    patterns: Sequence[str],
    opponent_tx: optax.GradientTransformation | None,
    *,
    frozen: Sequence[str] = (),
) -> tuple[Groups, tuple[str, ...]]:
    """Groups of a method in which some parameters have an optimizer, and updates, of their own.

    Args:
        tx: of the other parameters.
        name: of the opponent's group.
        patterns: its paths.
        opponent_tx: its optax transformation; `tx` if None.
        frozen: paths that do not train, besides those that `tx` freezes.

    Returns:
        (all groups; the names of those of `tx` that train).

    Raises:
        ValueError: `tx` is groups and there is no `opponent_tx`.
    """
    if opponent_tx is None:
        if isinstance(tx, Mapping):
            raise ValueError(f"with groups, the {name} needs an optax transformation of its own")
        opponent_tx = tx
    groups = dict(as_groups(tx))
    frozen = (*groups.pop(FROZEN, ((), None))[0], *frozen)
    first = {FROZEN: (frozen, optax.set_to_zero())} if frozen else {}
    return {**first, name: (tuple(patterns), opponent_tx), **groups}, tuple(groups)
