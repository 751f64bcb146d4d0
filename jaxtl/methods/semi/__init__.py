"""Semi-supervised targets: few labels, and many examples of the same kind without.

The domains are those of `adapt`: what has labels is a source, what has none the target. Without a
source of another kind they are `[labelled(few, head), unlabelled(dataset, head)]`; a source stage
may come before, or another labelled domain stand beside (few labels of the target then say so by
their role, `labelled(few, head, role="target")`). A stage draws as many examples of each domain: of
the unlabelled one several times as many, as the papers have them, if it is named several times.

The methods of `adapt` work here too; FixMatch and the mean teacher, which come from here, stand in
both rooms. Papers evaluate an average of what trains: `dataclasses.replace(method, ema=0.99)`.

    tx         optax transformation of all parameters, or groups as in `transfer.grouped`
    strong     (rng, inputs [n, ...] float) -> inputs, views of the targets that are hard to read;
               weak ones are the inputs of the batch, as the domains' own `augment` leaves them
    threshold  least probability of a label that is used; means are over all examples
    weight     factor of what is added to the supervised objective, or step -> factor
"""

from jaxtl.methods.adapt.fix_match import fix_match
from jaxtl.methods.adapt.mean_teacher import mean_teacher
from jaxtl.methods.semi.debias_match import debias_match
from jaxtl.methods.semi.dst import dst
from jaxtl.methods.semi.flex_match import flex_match
from jaxtl.methods.semi.pi_model import gaussian_rise, pi_model
from jaxtl.methods.semi.self_tuning import self_tuning
from jaxtl.methods.semi.uda import uda
