"""What evaluations, derived metrics and criteria of one's own return, tried without data."""

import contextlib
import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.blame import account, explain, place_of
from jaxtl.form import PRINTABLE, describe, is_array, wrong
from jaxtl.measure.episodes import episode_sums, learner_of
from jaxtl.measure.examples import Batch
from jaxtl.models import forward, to_float
from jaxtl.models.programs import Form
from jaxtl.plan import CRITERIA, Criterion, Data, Evaluation, Head, PyTree, key_parts
from jaxtl.train.resolve.contract import differing
from jaxtl.train.resolve.stage import Setup

TAKEN = ("step", "loss")
METRICS = Mapping[Annotated[str, PRINTABLE], float]


def abstract_inputs(dataset: Data, count: int = 1) -> PyTree:
    """What a model is given of so many examples."""
    inputs = jax.tree.map(lambda leaf: leaf[:1], dataset.table().inputs)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype),
        jax.eval_shape(to_float, inputs),
    )


def _abstract_labels(head: Head, count: int) -> jax.ShapeDtypeStruct:
    dtype = jnp.int32 if head.integer else jnp.float32
    return jax.ShapeDtypeStruct((count, *head.label_shape), dtype)


def metric_sums(evaluation: Evaluation, head: Head, count: int = 1) -> PyTree:
    """What an evaluation sums, over examples of zeros."""
    labels = jnp.zeros_like(_abstract_labels(head, count))
    return evaluation.sums(jnp.zeros((count, head.size)), labels, jnp.zeros(labels.shape))


def metric_names(evaluation: Evaluation, head: Head) -> list[str]:
    """Names of what an evaluation measures, without data.

    Raises:
        ValueError: its `sums` are none, or its `results` no numbers, or they raise.
    """
    with _naming_errors(evaluation.sums, "its sums"):
        sums = jax.eval_shape(lambda: _arrays(metric_sums(evaluation, head)))
        of_two = jax.eval_shape(lambda: _arrays(metric_sums(evaluation, head, 2)))
        if lines := list(differing(sums, of_two)):
            raise ValueError(f"the form depends on the number of examples: {'; '.join(lines)}")
    with _naming_errors(evaluation.results, "its results"), np.errstate(all="ignore"):
        results = evaluation.results(jax.tree.map(lambda s: np.ones(s.shape), sums))
        if problems := list(wrong("the value", results, METRICS)):
            raise ValueError("; ".join(problems))
        with contextlib.suppress(ArithmeticError):
            of_zeros = evaluation.results(jax.tree.map(lambda s: np.zeros(s.shape), sums))
            if names := sorted(of_zeros.keys() ^ results.keys()):
                raise ValueError(f"which metrics there are depends on the data: {', '.join(names)}")
    return list(results)


def derived_reads(name: str, derive: Callable, metrics: set[str]) -> set[str]:
    """The metrics that a derived one reads.

    Raises:
        ValueError: it raises (but for what is undefined), returns no number, or its name is taken.
    """
    if name in TAKEN or name in metrics or key_parts(name)[0] == CRITERIA:
        raise ValueError(f"derived metric {name!r}: another number has that name")
    values = defaultdict(lambda: 1.0, dict.fromkeys(metrics, 1.0))
    with _naming_errors(derive, f"derived metric {name!r}"):
        try:
            value = derive(values)
        except ArithmeticError:
            value = math.nan
        if problems := list(wrong("the value", value, float)):
            raise ValueError(problems[0])
    return set(values)


def check_score(criterion: Criterion, setup: Setup, seed: int) -> None:
    """Trace a criterion on a stage's model.

    Raises:
        ValueError: it raises, or its score is no scalar.
    """
    predict, model = setup.stage.method.predict, setup.model

    def score(params: PyTree, state: PyTree, examples: list[PyTree]) -> jax.Array:
        outputs = functools.partial(forward(model, predict), params, state)
        value = criterion.score(outputs, *({**outputs(e["inputs"]), **e} for e in examples))
        if not is_array(value) or jnp.shape(value) != ():
            raise ValueError(f"it must be a scalar, got {describe(value)}")
        return value

    examples = []
    for domain in criterion.domains:
        count = len(domain.dataset.rows(seed))
        labels = {name: _abstract_labels(model.heads[name], count) for name in domain.heads}
        examples.append({"inputs": abstract_inputs(domain.dataset, count), "labels": labels})
    with _naming_errors(criterion.score, "its score"):
        jax.eval_shape(score, setup.params, setup.state, examples)


def check_answers(evaluation: Evaluation, setup: Setup) -> None:
    """Trace what answers the queries of an evaluation on episodes, on a stage's model.

    Raises:
        ValueError: it raises, or has networks of its own that the stage did not train.
    """
    learner = learner_of(evaluation, setup.stage.method)
    if missing := sorted(learner.modules.keys() - setup.params.keys()):
        raise ValueError(
            f"learner {learner.name!r} has a network of its own, {missing[0]!r}, which stage "
            f"{setup.stage.name!r} does not train: only an arm that ends with it can be asked"
        )
    others = (evaluation.sums, evaluation.head, evaluation.episodes, learner)
    form, head = Form(setup.model, None, others), setup.model.heads[evaluation.head]
    count = len(evaluation.episodes.roles)
    labels = _abstract_labels(head, count)
    weights, counts = (
        jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (labels.shape, (count,))
    )
    batch = Batch(abstract_inputs(evaluation.dataset, count), labels, weights, counts)
    with _naming_errors(learner.predict, f"its learner {learner.name!r}"):
        jax.eval_shape(functools.partial(episode_sums, form), (setup.params, setup.state), batch)


def _arrays(sums: PyTree) -> PyTree:
    leaves = jax.tree.leaves(sums)
    for leaf in leaves or [None]:
        if not is_array(leaf):
            raise ValueError(f"they must be arrays, got {describe(leaf)}")
    return sums


@contextlib.contextmanager
def _naming_errors(function: Callable, what: str) -> Iterator[None]:
    """Whatever a function of the user's raises, as a ValueError that says where it is written."""
    try:
        yield
    except Exception as error:
        place = "" if account(error) else place_of(function)
        raise ValueError(f"{what}{place and f' ({place})'}: {explain(error)}") from error
