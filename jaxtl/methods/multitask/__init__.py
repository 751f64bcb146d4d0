"""Several tasks at once: what their losses weigh, and what becomes of gradients that disagree.

Arguments that all methods share are explained in `jaxtl.methods.transfer`.
"""

from jaxtl.methods.multitask.pcgrad import pcgrad
from jaxtl.methods.multitask.uncertainty_weighting import uncertainty_weighting
