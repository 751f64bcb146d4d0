"""Domain generalisation: from several labelled domains to one that nobody has seen.

Every labelled domain of a stage is a source; `labelled(rotated, "digit")` each. Labels of a domain
count as they are weighed, and a domain without labels adds nothing unless a method says so. All
methods need two sources at least: with one there is nothing that could differ.

Arguments of many builders, explained here alone:

    tx      optax transformation of all parameters, of the method's networks too; or groups as in
            `transfer.grouped`
    weight  factor of what is added to the supervised objective, or step -> factor

`and_mask` and `sand_mask` are rules for `multitask.joint(tx, rule, per="domain")`.
"""

from jaxtl.methods.generalize.and_mask import and_mask
from jaxtl.methods.generalize.fish import fish
from jaxtl.methods.generalize.fishr import fishr
from jaxtl.methods.generalize.rsc import rsc
from jaxtl.methods.generalize.sand_mask import sand_mask
