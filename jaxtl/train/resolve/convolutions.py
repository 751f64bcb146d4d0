"""What a CPU runs of the convolutions in a traced program."""

from typing import NamedTuple

from jax.extend import core as jex


class Convolutions(NamedTuple):
    """What a CPU runs of a program's convolutions.

    Attributes:
        native: there is an ordinary one, whose gradient may be asked for.
        patch_bytes: size of the largest operand among those that `jax.lax.platform_dependent`
            replaces by a product of patches; 0 if there is none.
        forward: there is one of ours that is not differentiated.
    """

    native: bool
    patch_bytes: int
    forward: bool = False


def convolutions(jaxpr: jex.Jaxpr) -> Convolutions:
    """Validation for convolutions in a program and in all that it calls."""
    native, patch_bytes, forward = False, 0, False
    for eqn in jaxpr.eqns:
        subs = list(jex.jaxprs_in_params(eqn.params))
        inner = [convolutions(sub) for sub in subs]
        if eqn.primitive.name == "conv_general_dilated":
            native = True
        elif eqn.params.get("branches_platforms"):
            native |= inner[0].native
            if not inner[0].native and any(branch.native for branch in inner):
                patch_bytes = max(patch_bytes, _largest_factor(subs[0]))
        elif eqn.primitive.name == "custom_jvp_call":  # it is not differentiated
            forward |= any(sub.native for sub in inner)
        else:
            native |= any(sub.native for sub in inner)
            patch_bytes = max([patch_bytes, *(sub.patch_bytes for sub in inner)])
            forward |= any(sub.forward for sub in inner)
    return Convolutions(native, patch_bytes, forward)


def _largest_factor(jaxpr: jex.Jaxpr) -> int:
    """Bytes of the largest left operand of a matrix product: patches, not kernels."""
    sizes = [
        var.aval.size * var.aval.dtype.itemsize
        for eqn in jaxpr.eqns
        if eqn.primitive.name == "dot_general"
        for var in eqn.invars[:1]
    ]
    inner = [_largest_factor(sub) for eqn in jaxpr.eqns for sub in jex.jaxprs_in_params(eqn.params)]
    return max([0, *sizes, *inner])
