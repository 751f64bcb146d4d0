"""Learning in context: a transformer reads examples with their labels and answers the next one."""

from jaxtl.methods.fewshot.reading import among_present, both_features, head_of, targets
from jaxtl.models import support_reader
from jaxtl.plan import Learner, Module


def in_context(module: Module | None = None, *, transductive: bool = False) -> Learner:
    """Logits g(f(x), {(f(x_i), y_i)}), g a transformer; its weights and those of f train.

    The y_i are one-hot classes or numbers;
    which number a class has in an episode is drawn, so that g learns to treat them alike. Padding
    is masked. Every query is answered as if it were alone.

    Args:
        module: g, as `models.support_reader()`, which is used if None.

    Santoro et al., "Meta-Learning with Memory-Augmented Neural Networks", ICML 2016,
    arXiv:1605.06065, and Mishra et al., "A Simple Neural Attentive Meta-Learner", ICLR 2018,
    arXiv:1707.03141, read the support as a sequence in time; here it is a set, as in Garg et al.,
    "What Can Transformers Learn In-Context?", NeurIPS 2022, arXiv:2208.01066, without positions.
    """
    network = support_reader() if module is None else module

    def predict(model, params, state, support, queries, *, ways, rng, train):
        head = head_of(model)
        of_support, of_queries, statistics = both_features(
            model, params, state, support, queries, rng=rng, live=train or transductive
        )
        labels = targets(head, support, head.size).astype(of_support.dtype)
        inputs = (of_support, labels, support.weights, of_queries)
        logits = network.apply(params["context"], inputs)[:, :ways]
        return (among_present(logits, support, ways) if head.integer else logits), statistics

    return Learner("in context", predict, {"context": network}, transductive, ())
