"""Few-shot learning: a learner answers the queries of an episode from its support.

A learner is a value, one function and what it needs (`jaxtl.plan.Learner`). `episodic(learner, tx)`
trains a model so that the learner's answers are right; any arm can be evaluated with any learner.
Sizes, heads and roles are read from the episode. Arguments that all learners share:

    tx            optax transformation of the outer loop, as in `jaxtl.methods.transfer`
    inner         that of an inner loop, on the mean loss of the support; anew in each episode
    num_steps     of the inner loop, in training
    eval_steps    likewise in evaluation; as many if None
    patterns      path patterns: of what trains, for `episodic`; of what the inner loop changes, for
                  a learner. What it leaves alone is constant in it and trains in the outer loop
    first_order   gradients of the inner steps are constants of the outer one
    remat         inner steps are computed again in the backward pass: less memory, more time
    rows          of the support in each inner step, drawn anew; all if None
    transductive  in evaluation too, layers with batch statistics use those of the episode, so that
                  a query's answer depends on the others; in training they always do, and padding
                  counts in them

Classes without support in an episode get logits that no softmax sees. Most learners compare
classes; maml, anil, meta_sgd, implicit_maml, reptile, fine_tuning, ridge_head and in_context also
answer with numbers.
"""

from jaxtl.methods.fewshot.anil import anil
from jaxtl.methods.fewshot.baseline import baseline
from jaxtl.methods.fewshot.baseline_plus_plus import baseline_plus_plus
from jaxtl.methods.fewshot.episodic import episodic, untrained
from jaxtl.methods.fewshot.fine_tuning import fine_tuning
from jaxtl.methods.fewshot.implicit_maml import implicit_maml
from jaxtl.methods.fewshot.in_context import in_context
from jaxtl.methods.fewshot.logistic_head import logistic_head
from jaxtl.methods.fewshot.maml import maml
from jaxtl.methods.fewshot.matching import matching
from jaxtl.methods.fewshot.meta_sgd import meta_sgd
from jaxtl.methods.fewshot.prototypical import prototypical
from jaxtl.methods.fewshot.reading import cosine, squared_euclidean
from jaxtl.methods.fewshot.relation import relation
from jaxtl.methods.fewshot.reptile import reptile
from jaxtl.methods.fewshot.ridge_head import ridge_head
from jaxtl.methods.fewshot.simple_shot import feature_mean, simple_shot
