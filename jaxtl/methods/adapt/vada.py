"""VADA: an adversary for the domains, and decision boundaries away from the target's examples."""

from collections.abc import Sequence

import jax
import optax

from jaxtl.losses import entropy, supervised, virtual_adversarial
from jaxtl.methods.adapt.adversary import for_domains
from jaxtl.methods.adapt.dann import DISCRIMINATOR, domain_term
from jaxtl.methods.adapt.sides import Weight, as_rows, at_domains, head_of, split_sides
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Batch, Method, Model, Module, Params, State
from jaxtl.plan.batch import sides_of


def vada(
    tx: optax.GradientTransformation | Groups,
    *,
    reversal: Weight = 1.0,
    domain_weight: float = 0.01,
    source_weight: float = 1.0,
    target_weight: float = 0.01,
    radius: float = 3.5,
    discriminator: Module | None = None,
) -> Method:
    """The supervised objective + an adversary + conditional entropy + smoothness.

    Adds domain_weight * the term of `dann`, source_weight * `virtual_adversarial` of the sources,
    and target_weight * (that of the targets + the entropy of their predictions). The paper's
    adversary trains in steps of its own, here behind a reversal of the gradient, whose coefficient
    grows by default not at all. Its images are normalised each by itself, which is up to the model
    here. The model that the paper evaluates is an average of what trains: `Method.ema`.

    Args:
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        reversal: step -> coefficient of the reversal, or a constant.
        domain_weight: the paper's lambda_d.
        source_weight: its lambda_s, 0 or 1 there.
        target_weight: its lambda_t.
        radius: of the perturbations, in the units of the inputs.
        discriminator: as in `dann`.

    Shu et al., "A DIRT-T Approach to Unsupervised Domain Adaptation", ICLR 2018. arXiv:1802.08735,
    Eq. 8.
    """
    network = for_domains(discriminator, (100,))
    adversary = domain_term(network, reversal, domain_weight)

    def loss_fn(model: Model, params: Params, state: State, batch: Batch, rng, step: jax.Array):
        head, inputs, before = head_of(batch), batch.inputs, state
        output, state = apply_flat(model, params, state, inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        source, target = split_sides(output, batch)
        confusion, metrics = adversary(params, source, target, rng, step)

        def smoothness(chosen: Sequence[int], key: jax.Array) -> jax.Array:
            def predict(inputs: jax.Array) -> jax.Array:
                output, _ = model.apply(params, before.statistics, inputs, rng=rng, train=True)
                return output["logits"][head]

            parts = (inputs, output["logits"][head], batch.present)
            return virtual_adversarial(
                predict, key, *as_rows(at_domains(parts, chosen)), radius=radius
            )

        sources, targets = sides_of(batch.roles)
        keys = jax.random.split(jax.random.fold_in(rng, 1))
        metrics |= {
            "task_loss": task,
            "source_smoothness": smoothness(sources, keys[0]),
            "target_smoothness": smoothness(targets, keys[1]),
            "target_entropy": target.present.mean() * entropy(target.logits, target.present),
        }
        on_target = metrics["target_smoothness"] + metrics["target_entropy"]
        loss = task + confusion + source_weight * metrics["source_smoothness"]
        return loss + target_weight * on_target, (state, metrics)

    modules = {DISCRIMINATOR: network}
    return one_update(as_groups(tx), loss_fn, per_example=True, modules=modules)
