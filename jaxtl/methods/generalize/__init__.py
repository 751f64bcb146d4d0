"""Domain generalisation: from several labelled domains to one that nobody has seen.

Every labelled domain of a stage is a source; `labelled(rotated, "digit")` each. Labels of a domain
count as they are weighed, and a domain without labels adds nothing unless a method says so. All
methods but `rsc` and `sagnet`, which read no domains, need two sources at least. The baseline is
`transfer.full`, which minimises the sum of the domains' risks (empirical risk minimisation) and is
hard to beat (Gulrajani & Lopez-Paz, 2021, arXiv:2007.01434).

The risk of a domain is the mean loss of its labelled examples, by their weights: neither a label
that is missing nor the weight of the whole domain changes it. That weight says how much the domain
counts, in the objective and in what is added to it alike: with weights of 1 both are sums over the
domains, as in `transfer.full`, and with 1 / domains they are means, as in most public code. Several
heads have risks of their own, and what is added is their sum. What is added on features, labels
apart, is a mean over domains, their pairs or their examples, by the examples' own weights.

Arguments of many builders, explained here alone:

    tx       optax transformation of all parameters, of the method's networks too; or groups as in
             `transfer.grouped`
    weight   factor of what is added to the supervised objective, or step -> factor, such as
             `optax.piecewise_constant_schedule(1.0, {500: 100.0})`: 1, and 100 from step 500 on
    rescale  divide the loss by the weight where that is above 1, so that its size does not jump
             when the weight does, which the moments of Adam would remember; `restarted` starts
             these anew
    l2       factor of the sum of squares of all parameters, a part of the loss that is divided

`and_mask` and `sand_mask` are rules for `multitask.joint(tx, rule, per="domain")`.
"""

from jaxtl.methods.generalize.and_mask import and_mask
from jaxtl.methods.generalize.arm import arm
from jaxtl.methods.generalize.caus_irl import caus_irl_coral, caus_irl_mmd
from jaxtl.methods.generalize.cdann import cdann
from jaxtl.methods.generalize.coral import coral
from jaxtl.methods.generalize.dann import dann
from jaxtl.methods.generalize.domain_mixup import domain_mixup
from jaxtl.methods.generalize.eqrm import eqrm
from jaxtl.methods.generalize.fish import fish
from jaxtl.methods.generalize.fishr import fishr
from jaxtl.methods.generalize.group_dro import group_dro, worst_domains
from jaxtl.methods.generalize.information_bottleneck import ib_erm, ib_irm
from jaxtl.methods.generalize.irm import irm, irm_two_halves
from jaxtl.methods.generalize.marginal_transfer import marginal_transfer
from jaxtl.methods.generalize.mldg import mldg, mldg_first_order
from jaxtl.methods.generalize.mmd import mmd
from jaxtl.methods.generalize.restarted import restarted
from jaxtl.methods.generalize.rsc import rsc
from jaxtl.methods.generalize.sagnet import sagnet
from jaxtl.methods.generalize.sand_mask import sand_mask
from jaxtl.methods.generalize.spectral_decoupling import spectral_decoupling
from jaxtl.methods.generalize.vrex import vrex
