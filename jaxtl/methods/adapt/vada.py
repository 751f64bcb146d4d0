"""VADA: an adversary for the domains, and decision boundaries away from the target's examples."""

import jax
import optax

from jaxtl.losses import entropy, supervised, virtual_adversarial
from jaxtl.methods.adapt.dann import DISCRIMINATOR, domain_term
from jaxtl.methods.adapt.sides import Weight, head_of, present_of, split_sides
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat, mlp_head
from jaxtl.plan import Batch, Method, Model, Module, Params, State


def vada(
    tx: optax.GradientTransformation | Groups,
    *,
    reversal: Weight = 1.0,
    domain_weight: float = 0.01,
    source_weight: float = 1.0,
    target_weight: float = 0.01,
    radius: float = 3.5,
    domains: int = 2,
    sources: int = 1,
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
        domains: of the stage; each is a class of the discriminator.
        sources: how many of them, the first, are sources.
        discriminator: as in `dann`.

    Raises:
        ValueError: when it runs, the stage has another number of domains.

    Shu et al., "A DIRT-T Approach to Unsupervised Domain Adaptation", ICLR 2018. arXiv:1802.08735,
    Eq. 8.
    """
    network = discriminator or mlp_head((100,), domains)
    adversary = domain_term(network, reversal, domain_weight)

    def loss_fn(model: Model, params: Params, state: State, batch: Batch, rng, step: jax.Array):
        head, inputs, before = head_of(batch), batch.inputs, state
        if inputs.shape[1] != domains:
            raise ValueError(f"vada has domains={domains}, its stage has {inputs.shape[1]}.")
        output, state = apply_flat(model, params, state, inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        source, target = split_sides(output, batch, sources)
        confusion, metrics = adversary(params, source, target, rng, step)

        def smoothness(chosen: slice, key: jax.Array) -> jax.Array:
            def predict(inputs: jax.Array) -> jax.Array:
                output, _ = model.apply(params, before.statistics, inputs, rng=rng, train=True)
                return output["logits"][head]

            seen = inputs[:, chosen].reshape(-1, *inputs.shape[2:])
            logits = output["logits"][head][:, chosen].reshape(len(seen), -1)
            present = present_of(batch, chosen)
            return virtual_adversarial(predict, key, seen, logits, present, radius=radius)

        keys = jax.random.split(jax.random.fold_in(rng, 1))
        metrics |= {
            "task_loss": task,
            "source_smoothness": smoothness(slice(None, sources), keys[0]),
            "target_smoothness": smoothness(slice(sources, None), keys[1]),
            "target_entropy": target.present.mean() * entropy(target.logits, target.present),
        }
        on_target = metrics["target_smoothness"] + metrics["target_entropy"]
        loss = task + confusion + source_weight * metrics["source_smoothness"]
        return loss + target_weight * on_target, (state, metrics)

    modules = {DISCRIMINATOR: network}
    return one_update(as_groups(tx), loss_fn, per_example=True, modules=modules)
