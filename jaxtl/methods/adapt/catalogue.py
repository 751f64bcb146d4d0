"""The methods of this room side by side, for a table of all of them."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import optax

from jaxtl.losses import reversal_schedule
from jaxtl.methods.adapt.afn import afn
from jaxtl.methods.adapt.bnm import bnm
from jaxtl.methods.adapt.bsp import bsp
from jaxtl.methods.adapt.can import can
from jaxtl.methods.adapt.cdan import cdan, cdan_e
from jaxtl.methods.adapt.cmd import cmd
from jaxtl.methods.adapt.dan import dan
from jaxtl.methods.adapt.dann import dann
from jaxtl.methods.adapt.deep_coral import deep_coral
from jaxtl.methods.adapt.deep_jdot import deep_jdot
from jaxtl.methods.adapt.dsan import dsan
from jaxtl.methods.adapt.fix_match import fix_match
from jaxtl.methods.adapt.jan import jan
from jaxtl.methods.adapt.mcc import mcc
from jaxtl.methods.adapt.mcd import mcd
from jaxtl.methods.adapt.mdd import mdd
from jaxtl.methods.adapt.mean_teacher import mean_teacher
from jaxtl.methods.adapt.self_training import self_training
from jaxtl.methods.adapt.vada import vada
from jaxtl.methods.adapt.wdgrl import wdgrl
from jaxtl.paths import unknown
from jaxtl.plan import Method, PyTree


def catalogue(
    tx: optax.GradientTransformation,
    *,
    num_steps: int,
    tx_by_method: Mapping[str, optax.GradientTransformation] | None = None,
    strong: Callable[[jax.Array, PyTree], PyTree] | None = None,
    radius: float | None = None,
    random_features: int | None = None,
) -> dict[str, Method]:
    """{name: method} of all that train on a labelled source and an unlabelled target.

    Weights are the defaults of each builder, reversals and the weight of DSAN grow over the stage
    as in the papers. DeepJDOT weighs the distance of features by 0.01, since squared distances of
    many features outweigh everything.

    Args:
        tx: of every method that `tx_by_method` does not name.
        num_steps: of the stage.
        tx_by_method: {name: optax transformation} of methods that train otherwise, such as
            `slow_optimizers(num_steps)`.
        strong: augmentation of `fix_match` and of the two views of `mean_teacher`, (rng, inputs) ->
            inputs; without it `fix_match` is left out.
        radius: of the perturbations of `vada`, in the units of the inputs; left out without it.
        random_features: of `cdan` and `cdan_e`, for wide features and many classes.

    Raises:
        ValueError: `tx_by_method` names a method that is not in the table.
    """
    ramp, tx_by_method = reversal_schedule(num_steps), tx_by_method or {}
    conditional = {"reversal": ramp, "random_features": random_features}
    builders: dict[str, Callable[[optax.GradientTransformation], Method]] = {
        make.__name__: make for make in (dan, jan, deep_coral, cmd, wdgrl, mcc, bnm, self_training)
    }
    builders |= {
        "deep_jdot": partial(deep_jdot, feature_weight=0.01),
        "mean_teacher": partial(mean_teacher, augment=strong),
        "dsan": partial(dsan, weight=reversal_schedule(num_steps, high=0.5)),
        "dann": partial(dann, reversal=ramp),
        "bsp": partial(bsp, reversal=ramp),
        "cdan": partial(cdan, **conditional),
        "cdan_e": partial(cdan_e, **conditional),
        "mdd": partial(mdd, reversal=reversal_schedule(num_steps, high=0.1)),
        "mcd": mcd,
        "can": partial(can, every=max(1, num_steps // 5)),
        "afn": afn,
    }
    if strong is not None:
        builders["fix_match"] = partial(fix_match, strong=strong)
    if radius is not None:
        builders["vada"] = partial(vada, radius=radius)
    for name in sorted(tx_by_method.keys() - builders.keys()):
        raise ValueError(f"tx_by_method: {unknown('method', name, builders)}")
    return {name: make(tx_by_method.get(name, tx)) for name, make in builders.items()}


def slow_optimizers(num_steps: int) -> dict[str, optax.GradientTransformation]:
    """{name: optax transformation} of the methods that an optimizer such as Adam harms.

    Methods with a gradient reversal get the stochastic gradient descent of the DANN paper, rate
    0.01 / (1 + 10 p)^0.75 at the share p of the stage and momentum 0.9: with an optimizer that
    divides by the size of the gradient the features outrun the domain classifier. AFN, which never
    ends to ask for larger features, gets a tenth of that rate.

    Args:
        num_steps: of the stage.
    """

    def slow(peak: float) -> optax.GradientTransformation:
        return optax.sgd(lambda step: peak / (1 + 10 * step / num_steps) ** 0.75, momentum=0.9)

    reversing = dict.fromkeys(("dann", "bsp", "cdan", "cdan_e", "mdd"), slow(0.01))
    return {**reversing, "afn": slow(0.001)}
