"""The methods of this room side by side, for a table of all of them."""

from collections.abc import Callable

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
from jaxtl.plan import Method, PyTree


def catalogue(
    tx: optax.GradientTransformation,
    *,
    classes: int,
    num_steps: int,
    strong: Callable[[jax.Array, PyTree], PyTree] | None = None,
    radius: float | None = None,
    random_features: int | None = None,
) -> dict[str, Method]:
    """{name: method} of all that train on a labelled source and an unlabelled target.

    Weights are the defaults of each builder, reversals and the weight of DSAN grow over the stage
    as in the papers. Methods with a gradient reversal have the stochastic gradient descent of the
    DANN paper, rate 0.01 / (1 + 10 p)^0.75 at the share p of the stage and momentum 0.9: with an
    optimizer that divides by the size of the gradient the features outrun the domain classifier.
    AFN, which never ends to ask for larger features, has a tenth of that rate. DeepJDOT weighs the
    distance of features by 0.01, since squared distances of many features outweigh everything.

    Args:
        tx: optax transformation of all parameters, of the other methods.
        classes: of the head that the domains name.
        num_steps: of the stage.
        strong: augmentation of `fix_match` and of the two views of `mean_teacher`, (rng, inputs) ->
            inputs; without it `fix_match` is left out.
        radius: of the perturbations of `vada`, in the units of the inputs; left out without it.
        random_features: of `cdan` and `cdan_e`, for wide features and many classes.
    """
    ramp = reversal_schedule(num_steps)
    product = {"classes": classes, "reversal": ramp, "random_features": random_features}

    def slow(peak: float = 0.01) -> optax.GradientTransformation:
        return optax.sgd(lambda step: peak / (1 + 10 * step / num_steps) ** 0.75, momentum=0.9)

    plain = (dan, jan, deep_coral, cmd, wdgrl, mcc, bnm, self_training)
    found = {make.__name__: make(tx) for make in plain} | {
        "deep_jdot": deep_jdot(tx, feature_weight=0.01),
        "mean_teacher": mean_teacher(tx, augment=strong),
        "dsan": dsan(tx, weight=reversal_schedule(num_steps, high=0.5)),
        "dann": dann(slow(), reversal=ramp),
        "bsp": bsp(slow(), reversal=ramp),
        "cdan": cdan(slow(), **product),
        "cdan_e": cdan_e(slow(), **product),
        "mdd": mdd(slow(), classes=classes, reversal=reversal_schedule(num_steps, high=0.1)),
        "mcd": mcd(tx, classes=classes),
        "can": can(tx, classes=classes, every=max(1, num_steps // 5)),
        "afn": afn(slow(0.001)),
    }
    if strong is not None:
        found["fix_match"] = fix_match(tx, strong=strong)
    if radius is not None:
        found["vada"] = vada(tx, radius=radius)
    return found
