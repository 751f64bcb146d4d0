"""Baseline++: a frozen backbone with a fresh cosine head, trained on the support."""

from typing import Annotated

import optax

from jaxtl.form import AT_LEAST_0, POSITIVE, checked
from jaxtl.losses import weighted_losses
from jaxtl.methods.fewshot.inner_loop import Adaptation, descend
from jaxtl.methods.fewshot.reading import (
    among_present,
    both_features,
    check_classes,
    class_means,
    cosine,
    head_of,
    unit,
    weighted_mean,
)
from jaxtl.plan import Learner


@checked
def baseline_plus_plus(
    inner: optax.GradientTransformation,
    *,
    num_steps: Annotated[int, AT_LEAST_0] = 100,
    scale: Annotated[float, POSITIVE] = 10.0,
    transductive: bool = False,
) -> Learner:
    """Logits scale * cos(f(x), w_k); the w_k, one a class, are fitted to the support.

    They start from the means of the classes' unit features (imprinting: Qi et al., 2018,
    arXiv:1712.07136), where the paper draws them: with 0 steps it is that, and no way is told from
    another by chance.

    Args:
        inner: of the steps, such as `optax.sgd(0.01, momentum=0.9)`.
        scale: public code has 2 for up to 200 classes, 10 for more.

    Chen et al., "A Closer Look at Few-shot Classification", ICLR 2019. arXiv:1904.04232.
    """

    def predict(model, params, state, support, queries, *, ways, rng, train):
        check_classes(model, "baseline_plus_plus")
        of_support, of_queries, statistics = both_features(
            model, params, state, support, queries, rng=rng, live=train or transductive
        )
        head, present = head_of(model), (support.weights > 0).astype(support.weights.dtype)

        def logits(rows, features):
            return among_present(scale * cosine(features, rows), support, ways)

        def loss(rows, key):
            losses = weighted_losses(head, logits(rows, of_support), support.labels, present)
            return weighted_mean(losses, support.weights)

        start = class_means(unit(of_support), support, ways)
        task = Adaptation(start, loss, lambda rows: (logits(rows, of_queries), statistics))
        return task.answer(descend(task, inner, num_steps, rng=rng, first_order=True))

    return Learner("Baseline++", predict, transductive=transductive, changes=())
