"""Several tasks at once: what their losses weigh, and what becomes of gradients that disagree.

`joint` is the method; each of the others is a rule for it. A task is a head with labels, or a
domain, or a head of a domain.
"""

from jaxtl.methods.multitask.gram import gram_rule
from jaxtl.methods.multitask.joint import joint
from jaxtl.methods.multitask.pcgrad import pcgrad
from jaxtl.methods.multitask.uncertainty_weighting import uncertainty_weighting
